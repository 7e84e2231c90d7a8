"""A real ComfyUI server in a separate process, with the pack installed.

    with HostServer(models=folder) as server:
        result = server.run({"1": {"class_type": "...", "inputs": {...}}})
        result.raise_for_error().images("9")

Only the code in the host's folder is used: the models, input, output, temp and user folders are in a base directory.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import websocket

from .comfyui import get_host
from .environment import host_python
from .paths import PACK_FOLDER, ROOT, WORK

Prompt = dict[str, dict[str, Any]]
"""A workflow in API format: {node id: {"class_type": ..., "inputs": {...}}}."""

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")
BINARY_PREVIEW, BINARY_TEXT, BINARY_PREVIEW_WITH_METADATA = 1, 3, 4
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
}
USER_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.32.9",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.ShowMissingModelsWarning": True,
    "Comfy.Workflow.ShowMissingNodesWarning": True,
}
"""The settings of a user who has already seen the first-run dialogs."""


class PromptRejected(Exception):
    """The server rejected a prompt, or accepted only part of it."""

    def __init__(self, status: int, reply: Mapping[str, Any]):
        self.status = status
        self.node_errors: dict[str, Any] = dict(reply.get("node_errors") or {})
        self.reply = reply
        super().__init__(f"HTTP {status}: {json.dumps(reply, indent=1)[:4000]}")


@dataclass(frozen=True)
class ExecutionError:
    """What the page shows in a node that failed."""

    node_id: str
    node_type: str
    exception_type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Progress:
    """One progress message of a node."""

    node_id: str
    value: float
    maximum: float


@dataclass(frozen=True)
class RunResult:
    """The result of one prompt."""

    prompt_id: str
    executed: tuple[str, ...]
    """Ids of the nodes that ran, in order; if a node failed, it is the last."""
    cached: tuple[str, ...]
    progress: tuple[Progress, ...]
    previews: tuple[bytes, ...]
    """Preview pictures, each a whole JPEG or PNG file."""
    texts: tuple[tuple[str, str], ...]
    """(node id, text) of each text that a node showed while it ran."""
    error: ExecutionError | None
    interrupted: bool
    outputs: dict[str, Any]
    """{node id: its UI output}, including cached nodes."""
    folders: Mapping[str, Path] = field(repr=False)
    seconds: float = 0.0

    def images(self, node_id: str) -> list[Path]:
        """The picture files that a node saved, in order."""
        entries = self.outputs.get(node_id, {}).get("images", [])
        return [self.folders[entry["type"]] / entry["subfolder"] / entry["filename"] for entry in entries]

    def raise_for_error(self) -> RunResult:
        if self.error is not None:
            raise AssertionError(f"node {self.error.node_id} ({self.error.node_type}): {self.error.traceback}")
        if self.interrupted:
            raise AssertionError("the run was interrupted")
        return self


class PendingRun:
    """A queued prompt, and the messages about it so far."""

    def __init__(self, prompt_id: str, connection: websocket.WebSocket):
        self.prompt_id = prompt_id
        self.connection = connection
        self.executed: list[str] = []
        self.cached: list[str] = []
        self.progress: list[Progress] = []
        self.previews: list[bytes] = []
        self.texts: list[tuple[str, str]] = []
        self.error: ExecutionError | None = None
        self.interrupted = False
        self.finished = False
        self.began = time.monotonic()

    def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._take_binary(message)
            return
        event = json.loads(message)
        kind, data = event["type"], event.get("data", {})
        if data.get("prompt_id") != self.prompt_id:
            return
        if kind == "executing":
            if data["node"] is None:
                self.finished = True
            elif data["node"] not in self.executed:
                self.executed.append(data["node"])
        elif kind == "execution_cached":
            self.cached.extend(data["nodes"])
        elif kind == "progress":
            self.progress.append(Progress(data["node"], data["value"], data["max"]))
        elif kind == "execution_error":
            self.error = read_error(data)
        elif kind == "execution_interrupted":
            self.interrupted = True

    def _take_binary(self, message: bytes) -> None:
        (kind,) = struct.unpack(">I", message[:4])
        if kind == BINARY_PREVIEW:
            self.previews.append(message[8:])
        elif kind == BINARY_PREVIEW_WITH_METADATA:
            (length,) = struct.unpack(">I", message[4:8])
            self.previews.append(message[8 + length :])
        elif kind == BINARY_TEXT:
            (length,) = struct.unpack(">I", message[4:8])
            self.texts.append((message[8 : 8 + length].decode(), message[8 + length :].decode()))


def read_error(data: Mapping[str, Any]) -> ExecutionError:
    """Reads the data of an `execution_error` message."""
    return ExecutionError(
        node_id=str(data["node_id"]),
        node_type=data["node_type"],
        exception_type=data["exception_type"],
        message=data["exception_message"].rstrip("\n"),
        traceback="".join(data["traceback"]) + data["exception_message"],
    )


class HostServer:
    """Starts ComfyUI's main.py on a free port, and stops it at the end of a `with` block.

    host: a ComfyUI folder (default: `get_host()`). base: the base directory (default: a new temporary one, deleted at the
    end). models: a folder whose files are linked into base/models (copied where links aren't possible), so a test that
    changes a model must write a new file. arguments: more arguments for main.py. environment: variables added to this
    process's own; None removes a variable. threads: torch's threads; None leaves the number to torch. other_packs: {name:
    folder} of other custom nodes to install. cpu: run only on the CPU. settings: the page's settings, besides USER_SETTINGS.
    """

    def __init__(
        self,
        *,
        host: Path | None = None,
        base: Path | None = None,
        models: Path | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        port: int | None = None,
        threads: int | None = 1,
        listen: str = "127.0.0.1",
        start_timeout: float = 300,
        pack: Path | None = ROOT,
        other_packs: Mapping[str, Path] | None = None,
        cpu: bool = True,
        settings: Mapping[str, Any] | None = None,
    ):
        self.host = host or get_host()
        self._delete_base = base is None
        if base is None:
            WORK.mkdir(parents=True, exist_ok=True)
            base = Path(tempfile.mkdtemp(prefix="server-", dir=WORK))
        self.base = base.resolve()
        self.models = self.base / "models"
        self.folders = {name: self.base / name for name in ("input", "output", "temp")}
        self.log_path = self.base / "server.log"
        self.port = port or free_port()
        self.listen = listen
        self.arguments = tuple(arguments)
        self.start_timeout = start_timeout
        self.environment = dict(os.environ) | QUIET
        if threads is not None:
            self.environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        for name, value in (environment or {}).items():
            if value is None:
                self.environment.pop(name, None)
            else:
                self.environment[name] = value
        self.other_packs = dict(other_packs or {})
        self.cpu = cpu
        self._lay_out(models, pack, USER_SETTINGS | dict(settings or {}))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.listen}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server has not been started"
        return self.process.pid

    def _lay_out(self, models: Path | None, pack: Path | None, page_settings: Mapping[str, Any]) -> None:
        for folder in (self.models, *self.folders.values()):
            folder.mkdir(parents=True, exist_ok=True)
        if models is not None:
            shutil.copytree(models, self.models, dirs_exist_ok=True, copy_function=link_or_copy)
        if (self.host / "input").is_dir():
            shutil.copytree(self.host / "input", self.folders["input"], dirs_exist_ok=True)  # example.png
        settings = self.base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text(json.dumps(page_settings), "utf-8")
        custom_nodes = self.base / "custom_nodes"
        custom_nodes.mkdir(exist_ok=True)
        if pack is not None:
            put_pack(pack, custom_nodes / PACK_FOLDER)
        for name, folder in self.other_packs.items():
            shutil.copytree(folder, custom_nodes / name, ignore=NOT_COPIED, dirs_exist_ok=True)

    def command(self) -> list[str]:
        # By default the database is in the host's own folder, where two servers would conflict.
        database = (self.base / "user" / "comfyui.db").as_posix()
        return [
            *(str(host_python(self.host)), str(self.host / "main.py"), "--use-pytorch-cross-attention"),
            *(["--cpu"] if self.cpu else []),
            *("--disable-auto-launch", "--disable-api-nodes", "--disable-all-custom-nodes"),
            *("--whitelist-custom-nodes", PACK_FOLDER, *self.other_packs),
            *("--listen", self.listen, "--port", str(self.port)),
            *("--base-directory", str(self.base), "--database-url", f"sqlite:///{database}"),
            *self.arguments,
        ]

    def start(self) -> HostServer:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.base, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + self.start_timeout
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with exit code {self.process.returncode}:\n{self.log_tail()}")
            try:
                self.get("/system_stats", timeout=5)
                break
            except OSError:
                pass
            if time.monotonic() > deadline:
                self.stop()
                raise TimeoutError(f"ComfyUI did not answer within {self.start_timeout} s:\n{self.log_tail()}")
            time.sleep(0.2)
        self.object_info()
        return self

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(15)

    def __enter__(self) -> HostServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.stop()
        if self._delete_base:
            take_pack_away(self.base / "custom_nodes" / PACK_FOLDER)
            shutil.rmtree(self.base, ignore_errors=True)

    # Requests

    def get(self, path: str, timeout: float = 60) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as reply:
            return json.loads(reply.read() or b"null")

    def post(self, path: str, data: Any, timeout: float = 60) -> tuple[int, Any]:
        """(HTTP status, reply)"""
        body = json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                status, content = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        return status, json.loads(content or b"null")

    def object_info(self, node_id: str | None = None) -> dict[str, Any]:
        """The description of all nodes that the page gets, {id: {...}}; with an id, of that node."""
        if node_id is None:
            return dict(self.get("/object_info"))
        return dict(self.get("/object_info/" + urllib.parse.quote(node_id))[node_id])

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def free(self) -> None:
        """Makes the host unload all models and forget all results, by the time this returns or before the next prompt starts.

        The host only sets a flag, which its worker reads when it next wakes; if that is for a prompt, it frees after the prompt.
        So this runs a small prompt first.
        """
        self.post("/free", {"unload_models": True, "free_memory": True})
        self.run(
            {
                "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
                "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            }
        )

    def log_text(self) -> str:
        return self.log_path.read_text("utf-8", errors="replace")

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    # Prompts

    def queue(self, prompt: Prompt, extra_data: Mapping[str, Any] | None = None) -> PendingRun:
        """Queues a prompt; raises PromptRejected if the server rejects any part of it."""
        client = uuid.uuid4().hex
        connection = websocket.create_connection(f"ws://{self.listen}:{self.port}/ws?clientId={client}", timeout=30)
        status, reply = self.post(
            "/prompt", {"prompt": prompt, "client_id": client, "extra_data": dict(extra_data or {})}
        )
        if status != 200 or reply.get("node_errors"):
            connection.close()
            raise PromptRejected(status, reply or {})
        return PendingRun(reply["prompt_id"], connection)

    def wait_until(self, pending: PendingRun, done: Callable[[PendingRun], bool], timeout: float = 120) -> PendingRun:
        """Reads the server's messages until `done(pending)` or the end of the run."""
        deadline = time.monotonic() + timeout
        while not pending.finished and not done(pending):
            pending.connection.settimeout(min(1.0, max(0.01, deadline - time.monotonic())))
            try:
                message = pending.connection.recv()
            except websocket.WebSocketTimeoutException:
                if self.process is not None and self.process.poll() is not None:
                    raise RuntimeError(f"ComfyUI ended during a run:\n{self.log_tail()}") from None
                if time.monotonic() > deadline:
                    self.interrupt()
                    raise TimeoutError(f"the run did not end within {timeout} s:\n{self.log_tail()}") from None
                continue
            except (websocket.WebSocketException, OSError) as error:
                raise RuntimeError(f"the connection to ComfyUI broke during a run:\n{self.log_tail()}") from error
            if message:
                pending.take(message)
        return pending

    def wait(self, pending: PendingRun, timeout: float = 120) -> RunResult:
        """Waits until a queued prompt ends."""
        try:
            self.wait_until(pending, lambda run: run.finished, timeout)
        finally:
            pending.connection.close()
        history = self.get(f"/history/{pending.prompt_id}").get(pending.prompt_id, {})
        return RunResult(
            prompt_id=pending.prompt_id,
            executed=tuple(pending.executed),
            cached=tuple(pending.cached),
            progress=tuple(pending.progress),
            previews=tuple(pending.previews),
            texts=tuple(pending.texts),
            error=pending.error,
            interrupted=pending.interrupted,
            outputs=history.get("outputs", {}),
            folders=self.folders,
            seconds=time.monotonic() - pending.began,
        )

    def run(self, prompt: Prompt, timeout: float = 120) -> RunResult:
        """Queues a prompt and waits until it ends. A node's error is in the result; a rejected prompt raises PromptRejected."""
        return self.wait(self.queue(prompt), timeout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_or_copy(source: str, target: str) -> str:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def put_pack(pack: Path, target: Path) -> None:
    """Links the pack's folder into custom_nodes; copies it where links aren't allowed."""
    take_pack_away(target)
    if os.name != "nt":
        try:
            target.symlink_to(pack, target_is_directory=True)
            return
        except OSError:
            pass
    shutil.copytree(pack, target, ignore=NOT_COPIED)


def take_pack_away(target: Path) -> None:
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
