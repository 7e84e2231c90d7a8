"""The real server for benchmarks: its flags, the time of each step report, and the models' calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_host.paths import PACK_FOLDER
from relay_host.server import HostServer, PendingRun, Prompt, RunResult, link_or_copy, put_pack
from support.server_log import lines_during

from . import glibc
from .glibc import per_step
from .graphs import PICTURE, Built, write_picture
from .models import BenchModel
from .settings import Settings

PROBE = "relay_bench_probe"
TESTS_FLAGS = {"--cpu", "--use-pytorch-cross-attention"}
SDPA = "--use-pytorch-cross-attention"
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class TimedRun:
    result: RunResult
    seconds: float
    """Seconds from just before the prompt was sent until its end."""
    step_times: dict[str, dict[float, float]]
    """{node: {value of its progress bar: time of the report}}"""
    step_faults: dict[str, dict[float, int | None]]
    """The same, with the server's minor page faults up to then."""
    faults: tuple[int | None, int | None]
    """The server's minor page faults before and after the run."""

    def denoising(self, sampler: str) -> float:
        """Seconds per step, from the report of the first to that of the last."""
        times = self.step_times[sampler]
        first, last = min(times), max(times)
        return (times[last] - times[first]) / (last - first)

    def whole_faults(self, quantity: str, steps: int) -> dict[str, float]:
        """Minor page faults of the whole run, per step, named for the quantity."""
        return per_step(quantity, *self.faults, steps)

    def denoising_faults(self, sampler: str) -> dict[str, float]:
        faults = self.step_faults[sampler]
        first, last = min(faults), max(faults)
        return per_step("denoising", faults[first], faults[last], last - first)


class BenchServer(HostServer):
    """A server with torch's default number of threads, as for a user.

    flags: replace the flags of the tests. packs: folders of other packs. default_allocator: keep the system's setting for glibc's
    allocator instead of the one that all contenders share.
    """

    def __init__(
        self,
        model: BenchModel,
        settings: Settings,
        *,
        flags: Sequence[str] = (),
        packs: Sequence[Path] = (),
        default_allocator: bool = False,
    ) -> None:
        self.flags = ("--verbose", "DEBUG", *(() if settings.gpu else ("--cpu",)), *flags)
        self.packs = tuple(packs)
        environment = glibc.variables(keeps_memory=not default_allocator)
        super().__init__(models=model.root, threads=None, environment=environment)
        write_picture(self.folders["input"] / PICTURE, model.side)
        probe = self.base / "custom_nodes" / PROBE
        probe.mkdir()
        for source, name in (("probe.py", "__init__.py"), ("counting.py", "counting.py")):
            link_or_copy(str(Path(__file__).with_name(source)), str(probe / name))
        for pack in packs:
            put_pack(pack, self.base / "custom_nodes" / pack.name)

    def __enter__(self) -> BenchServer:
        super().__enter__()
        return self

    def command(self) -> list[str]:
        command = [part for part in super().command() if part not in TESTS_FLAGS]
        after = command.index(PACK_FOLDER) + 1
        return [*command[:after], PROBE, *(pack.name for pack in self.packs), *command[after:], *self.flags]

    def has_node(self, node_id: str) -> bool:
        return node_id in self.object_info()

    @contextmanager
    def counting(self) -> Iterator[Calls]:
        """Records the models' calls and the loaded components during the block."""
        counted = Calls()
        self.get("/relay_bench/calls")
        with lines_during(self) as lines:
            yield counted
            counted.calls = [(what, shape) for what, shape in self.get("/relay_bench/calls")]
            counted.loads = [line for line in lines() if "loaded " in line and " of " in line]


class Calls:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.loads: list[str] = []
        """Lines of the log, each about one component."""

    def rows(self, what: str) -> int:
        """The number of texts, pictures or latents in all calls of that name in counting.METHODS."""
        return sum(shape[0] for name, shape in self.calls if name == what)

    def pictures_encoded(self, side: int) -> int:
        """Only pictures of that size, because the pack also encodes a small picture to recognise a latent space."""
        return sum(shape[0] for name, shape in self.calls if name == "encode" and shape[-2:] == [side, side])


def timed(server: HostServer, prompt: Prompt) -> TimedRun:
    """Runs a prompt and records when each step was reported."""
    step_times: dict[str, dict[float, float]] = {}
    step_faults: dict[str, dict[float, int | None]] = {}
    seen = 0

    def watch(run: PendingRun) -> bool:
        nonlocal seen
        now, faults = time.perf_counter(), glibc.minor_faults(server.pid)
        for step in run.progress[seen:]:
            if step.value > 0:
                step_times.setdefault(step.node_id, {}).setdefault(step.value, now)
                step_faults.setdefault(step.node_id, {}).setdefault(step.value, faults)
        seen = len(run.progress)
        return False

    before, began = glibc.minor_faults(server.pid), time.perf_counter()
    pending = server.queue(prompt)
    server.wait_until(pending, watch, TIMEOUT_SECONDS)
    seconds = time.perf_counter() - began
    faults = before, glibc.minor_faults(server.pid)
    return TimedRun(server.wait(pending).raise_for_error(), seconds, step_times, step_faults, faults)


def quantities(server: HostServer, built: Built) -> dict[str, float]:
    """Runs the graph. Returns seconds, "whole" and, per step, "denoising", and the minor page faults of both, per step."""
    run = timed(server, built.prompt)
    return {
        "whole": run.seconds,
        "denoising": run.denoising(built.sampler),
        **run.whole_faults("whole", len(run.step_times[built.sampler])),
        **run.denoising_faults(built.sampler),
    }
