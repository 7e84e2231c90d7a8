"""A Ray cluster whose machines are network namespaces, with a token, and runs of relay-batch on it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay_host.batch import batch_command, batch_commands, batch_variables
from relay_host.locked_environment import command_in

from .machines import NETWORK, Machines
from .s3_server import BUCKET, s3_variables

PORT, S3_PORT = 6379, 5555
METRICS_PORT = 8090
PORTS = {
    "metrics-export-port": METRICS_PORT,
    "dashboard-agent-grpc-port": 8091,
    "dashboard-agent-listen-port": 8092,
    "runtime-env-agent-port": 8093,
    "node-manager-port": 8094,
    "object-manager-port": 8095,
}
"""On each machine. A port that is not named is waited for, and not for long."""
HEAD = "head"
MEMORY = 80 * 2**20
"""Ray's object store on each machine: the least that it takes."""
START_TIMEOUT = 240
PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_enable_worker_prestart": "false",
    "RAY_prestart_worker_first_driver": "false",
}
"""A machine that runs other tests too may be slow."""


@dataclass
class RayCluster:
    """`folder` is for logs. The machines see the same disks, and the S3 server on the head."""

    machines: Machines
    folder: Path
    temp: Path
    """Ray's own files. The path has to be short, and its folder is each machine's own."""
    resource: str = "comfyui"
    """What a worker takes one of, and a machine that joins has one of. The head has none."""
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variables = batch_variables(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
                **PATIENT,
                **s3_variables(f"http://{NETWORK}.1:{S3_PORT}"),
                **self.variables,
            }
        )

    @property
    def address(self) -> str:
        return f"{self.machines.address(HEAD)}:{PORT}"

    def start_head(self) -> None:
        self.machines.add(HEAD)
        more = ["--head", "--no-monitor", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.temp}"]
        self._start(HEAD, more, "{}")

    def join(self, name: str) -> None:
        """A machine with room for one worker."""
        self.machines.add(name)
        self._start(name, [f"--address={self.address}"], json.dumps({self.resource: 1}))

    def end_all_but_the_head(self) -> None:
        for name in self.machines.names():
            if name != HEAD:
                self.machines.remove(name)
                self.log(f"ray-{name}").unlink(missing_ok=True)

    def run(self, *arguments: str, name: str = "driver") -> subprocess.Popen[bytes]:
        """`relay-batch run` on the head, with what names the cluster."""
        cluster = ["--engine", "ray", "--address", self.address, "--worker-takes", self.resource]
        command = [*batch_command(), "run", *arguments, *cluster]
        return self.machines.start(HEAD, command, self.log(name), self.variables)

    def start_s3(self) -> None:
        command = [str(command_in(batch_commands(), "moto_server")), "-H", "0.0.0.0", "-p", str(S3_PORT)]
        self.machines.start(HEAD, command, self.log("s3"), self.variables)
        make = f"import boto3; boto3.client('s3').create_bucket(Bucket='{BUCKET}'); print('made')"
        self.wait_for(lambda: "made" in self.on_head(make), "the S3 server")

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"{file.name}:\n{file.read_text('utf-8')[-3000:]}" for file in self.folder.glob("*.log")
                )
                raise TimeoutError(f"{what} was not there within {timeout:.0f} s\n{logs}")
            time.sleep(0.1)

    def on_head(self, code: str) -> str:
        """What a Python program prints that runs on the head."""
        log = self.folder / "asked.txt"
        log.unlink(missing_ok=True)
        process = self.machines.start(
            HEAD, [str(command_in(batch_commands(), "python")), "-c", code], log, self.variables
        )
        process.wait(START_TIMEOUT)
        return log.read_text("utf-8")

    def metrics(self) -> str:
        """What the head gives to Prometheus."""
        url = f"http://{self.machines.address(HEAD)}:{METRICS_PORT}/metrics"
        return self.on_head(f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())")

    def _start(self, name: str, more: Sequence[str], resources: str) -> None:
        """Starts Ray again and again until it runs: it gives up after 30 seconds, which a busy machine may need."""
        command = [
            *(str(command_in(batch_commands(), "ray")), "start", "--block", "--include-log-monitor=false", *more),
            *(f"--node-ip-address={self.machines.address(name)}", f"--resources={resources}", "--num-cpus=1"),
            *("--num-gpus=0", f"--object-store-memory={MEMORY}", "--disable-usage-stats"),
            *(f"--{port}={number}" for port, number in PORTS.items()),
        ]
        self.machines.start(
            name, ["sh", "-c", 'until "$@"; do sleep 1; done', "sh", *command], self.log(f"ray-{name}"), self.variables
        )
        log = self.log(f"ray-{name}")
        self.wait_for(lambda: "Ray runtime started" in log.read_text("utf-8"), f"Ray on the machine {name}")
