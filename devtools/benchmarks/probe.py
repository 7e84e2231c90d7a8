"""A pack of no nodes that the benchmarks put beside the pack into their servers: it answers what only that process knows."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from server import PromptServer

from . import counting

NODE_CLASS_MAPPINGS: dict[str, Any] = {}

routes = PromptServer.instance.routes


@routes.get("/relay_bench/calls")
async def calls(_: web.Request) -> web.Response:
    """The calls since the last question; the first question begins the counting."""
    counting.install()
    return web.json_response(counting.take())


@routes.get("/relay_bench/gpu_peak")
async def gpu_peak(_: web.Request) -> web.Response:
    """Bytes that torch had on the GPU at most since the last question, and has now."""
    import torch

    if not torch.cuda.is_available():
        return web.json_response({"peak": 0, "now": 0})
    answer = {"peak": torch.cuda.max_memory_allocated(), "now": torch.cuda.memory_allocated()}
    torch.cuda.reset_peak_memory_stats()
    return web.json_response(answer)
