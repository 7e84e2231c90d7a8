"""One headless ComfyUI, which a worker owns: its folders, its start and its end."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from . import launch_host
from .errors import HostFailed
from .host_client import HostClient, NoAnswer
from .jobs import HostSetup
from .locks import this_machine

PREFIX = "relay-batch"
"""A host's folder is PREFIX, a hash of the machine's name, the worker's process id, and something random, with hyphens."""
PORT_TAKEN = ("Errno 98]", "Errno 48]", "WinError 10048]")
TRIES = 3
STILL = 600.0
"""Seconds without any work and without a line in the log, after which a host that starts is given up."""
LOG_TAIL, REASON_LINES = 1 << 20, 15


class Host:
    """ComfyUI's main.py on a free port of 127.0.0.1.

    Args:
        beat: is called about five times a second while the host starts.
    """

    def __init__(self, setup: HostSetup, beat: Callable[[], None] = lambda: None):
        self.setup = setup
        self.beat = beat
        self.comfyui = Path(setup.comfyui).resolve()
        if not (self.comfyui / "main.py").is_file():
            raise HostFailed(f"--comfyui {setup.comfyui}: there is no main.py.")
        self.python = host_python(self.comfyui, setup.python)
        work = Path(setup.work or tempfile.gettempdir())
        work.mkdir(parents=True, exist_ok=True)
        remove_left_behind(work)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{_machine()}-{os.getpid()}-", dir=work)).resolve()
        self.input, self.output, self.temp = (self.folder / name for name in ("input", "output", "temp"))
        self.log = self.folder / "host.log"
        self.client = HostClient(0)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises HostFailed, with the last lines of the log. Waits as long as the process lives and does something."""
        for left in reversed(range(TRIES)):
            self._launch()
            try:
                self._wait_for_the_answer()
                return
            except HostFailed as error:
                self.stop()
                if not left or not any(one in str(error) for one in PORT_TAKEN):
                    raise

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ending(self) -> str:
        """How the process ended, in words."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return "ComfyUI was ended"
        name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
        return f"ComfyUI ended by itself ({name})"

    def stop(self) -> None:
        """Ends the host, and what its nodes have started. Its folders stay."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()  # the launcher ends the host
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it holds Python's lock
            if os.name == "nt":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Ends the host and removes its folders."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self) -> bytes:
        """The last megabyte of the log."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LOG_TAIL))
            return log.read()
        return b""

    def _launch(self) -> None:
        for folder in (self.input, self.output, self.temp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        show_inputs(self.setup.arguments, self.comfyui, self.input)
        self.client = HostClient(free_port())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.comfyui,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.setup.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        database = (self.folder / "comfyui.db").as_posix()  # the host's own would be shared
        return [
            *(str(self.python), str(Path(launch_host.__file__)), str(self.comfyui)),
            *self.setup.arguments,
            *("--listen", "127.0.0.1", "--port", str(self.client.port), "--disable-auto-launch"),
            *("--input-directory", str(self.input), "--output-directory", str(self.output)),
            *("--temp-directory", str(self.folder), "--database-url", f"sqlite:///{database}"),
        ]

    def _wait_for_the_answer(self) -> None:
        work, since = self._work(), time.monotonic()
        while True:
            self.beat()
            if not self.is_alive():
                raise HostFailed(f"ComfyUI did not start: {self.ending()}. {self._reason()}")
            with suppress(NoAnswer):
                if str(self.output) in self.client.arguments():  # and not another server on this port
                    return
            if work != (work := self._work()):
                since = time.monotonic()
            elif time.monotonic() - since > STILL:
                raise HostFailed(f"ComfyUI did not start: it has done nothing for {STILL:.0f} s. {self._reason()}")
            time.sleep(0.2)

    def _work(self) -> tuple[int, float]:
        """Grows while the host does something: its log's size, and its processor time in whole seconds."""
        assert self.process is not None
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0, 0.0
        return self.log.stat().st_size, float(int(times.user + times.system))

    def _reason(self) -> str:
        lines = self.log_tail().decode("utf-8", "replace").splitlines()
        return "The end of its log:\n" + "\n".join(lines[-REASON_LINES:])


def host_python(comfyui: Path, named: str | None) -> Path:
    """The Python that runs a ComfyUI: the named one, that of its own environment, or this one."""
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise HostFailed(f"--python {named}: there is no such program.")
        return Path(found)
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    places = [comfyui / "venv" / inside, comfyui / ".venv" / inside, comfyui.parent / "python_embeded" / "python.exe"]
    return next((place for place in places if place.is_file()), Path(sys.executable))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show_inputs(arguments: Sequence[str], comfyui: Path, target: Path) -> None:
    """Links what is in the user's own input folder into `target`: workflows name pictures there."""
    own = base_directory(arguments, comfyui) / "input"
    for entry in own.iterdir() if own.is_dir() else ():
        place = target / entry.name
        try:
            place.symlink_to(entry, target_is_directory=entry.is_dir())
        except OSError:  # Windows may not allow links
            if entry.is_dir():
                shutil.copytree(entry, place)
            else:
                shutil.copyfile(entry, place)


def base_directory(arguments: Sequence[str], comfyui: Path) -> Path:
    """The folder that has the host's own input and models."""
    if "--base-directory" in arguments[:-1]:
        return Path(arguments[arguments.index("--base-directory") + 1]).resolve()
    return comfyui


def _machine() -> str:
    """Several machines may have their folders on one disk."""
    return hashlib.sha256(this_machine().encode()).hexdigest()[:8]


def remove_left_behind(work: Path) -> None:
    """Removes the folders of this machine's hosts whose workers ended without removing them."""
    for folder in work.glob(f"{PREFIX}-{_machine()}-*"):
        owner = folder.name.split("-")[-2]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
