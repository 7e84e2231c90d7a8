"""A pack without nodes that the benchmarks add to their servers: it reports what only that process knows."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from server import PromptServer

from . import counting

NODE_CLASS_MAPPINGS: dict[str, Any] = {}

routes = PromptServer.instance.routes


@routes.get("/relay_bench/calls")
async def calls(_: web.Request) -> web.Response:
    """The calls since the last request; the first request starts counting."""
    counting.install()
    return web.json_response(counting.take())


@routes.get("/relay_bench/gpu_peak")
async def gpu_peak(_: web.Request) -> web.Response:
    """Peak bytes that torch had on the GPU since the last request, and the bytes now."""
    import torch

    if not torch.cuda.is_available():
        return web.json_response({"peak": 0, "now": 0})
    answer = {"peak": torch.cuda.max_memory_allocated(), "now": torch.cuda.memory_allocated()}
    torch.cuda.reset_peak_memory_stats()
    return web.json_response(answer)
