"""What the pack adds to the host's startup."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Iterator

from relay_host.comfyui import get_host
from relay_host.pack import enter_host
from relay_host.paths import ROOT, WORK
from relay_host.server import HostServer

from .apart import once
from .rows import Aim, Row, compared
from .settings import Settings
from .timing import Quantities, interleave, median

AIM_SECONDS = 0.05


def run(settings: Settings) -> Iterator[Row]:
    samples = interleave({"pack": lambda _: once(import_pack)}, settings.rounds, warm_up=settings.warm_up)
    modules = int(median(samples, "pack.modules"))
    yield Row(
        "import of the pack in the host, and its nodes' schemas",
        median(samples, "pack.seconds"),
        aim=Aim("ours", AIM_SECONDS),
        note=f"median of {settings.rounds} new processes with compiled files; {modules} new modules",
    )
    if settings.tiny:
        return
    whole = interleave(
        {"with": lambda _: start(with_pack=True), "without": lambda _: start(with_pack=False)},
        settings.rounds,
        warm_up=settings.warm_up,
    )
    yield compared("start of the host with the pack / without", whole, "with.seconds", "without.seconds")


def start(*, with_pack: bool) -> Quantities:
    """Seconds until a server answers."""
    began = time.perf_counter()
    with HostServer(pack=ROOT if with_pack else None, threads=None):
        return {"seconds": time.perf_counter() - began}


def import_pack() -> Quantities:
    """Loads the pack as the host does, after the host's own modules."""
    os.chdir(get_host())
    enter_host(get_host(), WORK / "bench")
    import comfy_api.latest
    import execution  # noqa: F401
    import folder_paths  # noqa: F401
    import latent_preview  # noqa: F401
    import node_helpers  # noqa: F401
    import server  # noqa: F401

    assert comfy_api.latest.io is not None
    before = set(sys.modules)
    began = time.perf_counter()
    spec = importlib.util.spec_from_file_location("pack_under_test", ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    pack = sys.modules["pack_under_test"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)

    async def schemas() -> int:
        extension = await pack.comfy_entrypoint()
        return len([node.GET_SCHEMA() for node in await extension.get_node_list()])

    nodes = asyncio.run(schemas())
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "nodes": nodes, "modules": len(set(sys.modules) - before)}
