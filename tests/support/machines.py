"""Several machines in one: network namespaces, each with an address of its own on a network that nothing else is on (Linux, root)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

NETWORK = "10.77.0"


def obstacle() -> str:
    """Why machines can't be made here; empty if they can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (Debian and Ubuntu: apt-get install iproute2)"
    tried = subprocess.run(["ip", "netns", "add", f"relay-try-{os.getpid()}"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"network namespaces can't be made here ({tried.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", f"relay-try-{os.getpid()}"], check=True)
    return ""


ON_ITS_OWN_DISK = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


class Machines:
    """They share this machine's processors, and its disks but for one folder. All processes in them end with the `with` block.

    Args:
        own: a folder that is another one on each machine.
    """

    def __init__(self, own: Path) -> None:
        self._own = own
        self._mark = f"relay-{os.getpid()}"
        self._switch = f"{self._mark}-switch"
        self._addresses: dict[str, str] = {}
        self._made = 0

    def __enter__(self) -> Machines:
        _ip("netns", "add", self._switch)
        try:
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "switch", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in self.names():
            self.remove(name)
        _ip("netns", "del", self._switch)

    def names(self) -> list[str]:
        return list(self._addresses)

    def add(self, name: str) -> str:
        """A new machine's address."""
        space, wire = f"{self._mark}-{name}", f"to-{name}"
        _ip("netns", "add", space)
        self._made += 1
        self._addresses[name] = f"{NETWORK}.{self._made}"
        _ip("-n", self._switch, "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", self._switch, "link", "set", wire, "master", "switch", "up")
        _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        return self.address(name)

    def address(self, name: str) -> str:
        return self._addresses[name]

    def start(
        self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as written:
            return subprocess.Popen(
                [
                    *("ip", "netns", "exec", f"{self._mark}-{name}"),
                    *("sh", "-c", ON_ITS_OWN_DISK, "sh", str(self._disk(name)), str(self._own), *command),
                ],
                env=None if variables is None else dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )

    def _disk(self, name: str) -> Path:
        disk = self._own.with_name(f"{self._own.name}-{name}")
        for folder in (disk, self._own):
            folder.mkdir(exist_ok=True)
        return disk

    def cut(self, name: str) -> None:
        """From now on nothing that is sent to the machine or by it arrives. What runs on it goes on."""
        _ip("-n", self._switch, "link", "set", f"to-{name}", "down")

    def kill(self, name: str) -> None:
        """Ends the machine at once, as if its power was cut: nobody is told."""
        if self._has_wire(name):
            self.cut(name)
        deadline = time.monotonic() + 10
        while pids := self.processes(name):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise TimeoutError(f"these processes of the machine {name} don't end: {pids}")
            time.sleep(0.05)

    def remove(self, name: str) -> None:
        self.kill(name)
        if self._has_wire(name):  # the kernel removes it with the namespace, which may take a while
            _ip("-n", self._switch, "link", "del", f"to-{name}")
        _ip("netns", "del", f"{self._mark}-{name}")
        shutil.rmtree(self._disk(name))
        del self._addresses[name]

    def _has_wire(self, name: str) -> bool:
        return f"to-{name}@" in _ip("-n", self._switch, "-o", "link")

    def processes(self, name: str) -> list[int]:
        """The ids of its processes."""
        return [int(pid) for pid in _ip("netns", "pids", f"{self._mark}-{name}").split()]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
