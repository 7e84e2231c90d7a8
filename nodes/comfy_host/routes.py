"""Answers of the host's server to the pack's page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...pipelines.base.errors import RelayError


def answer_posts(route: str, answer: Callable[[Any], str]) -> None:
    """``answer`` makes the text of the reply from the request's JSON. Its RelayError becomes a reply with status 400.

    Nothing happens where the host runs without a server, as in tests.
    """
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    async def reply(request: web.Request) -> web.Response:
        try:
            asked = await request.json()
            return web.Response(text=await asyncio.to_thread(answer, asked))
        except RelayError as error:
            return web.Response(text=str(error), status=400)
        except ValueError:
            return web.Response(text="The request is no JSON.", status=400)

    server.routes.post(route)(reply)
