"""The server's answer to the page's menu "Export diffusers script"."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from diffusers_relay.nodes import exported_script
from diffusers_relay.script.write import graph_in
from support.script_runs import RECORDED

EXAMPLES = json.loads(RECORDED.read_text("utf-8"))


def ask(monkeypatch: pytest.MonkeyPatch, body: bytes) -> tuple[int, str]:
    """(status, text) of the route's reply, on a server that has only this route."""
    import server

    routes = web.RouteTableDef()
    monkeypatch.setattr(server.PromptServer, "instance", SimpleNamespace(routes=routes), raising=False)
    exported_script.add_route()
    app = web.Application()
    app.add_routes(routes)

    async def asked() -> tuple[int, str]:
        async with TestClient(TestServer(app)) as client:
            reply = await client.post(exported_script.ROUTE, data=body)
            return reply.status, await reply.text()

    return asyncio.run(asked())


def test_a_graph_becomes_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = EXAMPLES["controlnet_depth_then_restyle"]
    (shown,) = (id for id, node in prompt.items() if node["class_type"] == "PreviewImage")
    asked: dict[str, Any] = {"prompt": prompt, "workflow": {"nodes": []}, "chosen": []}
    status, whole = ask(monkeypatch, json.dumps(asked).encode())
    assert status == 200, whole
    assert graph_in(whole) == {"prompt": prompt, "workflow": {"nodes": []}}
    status, part = ask(monkeypatch, json.dumps(asked | {"chosen": [shown]}).encode())
    assert status == 200
    assert (whole.count("\nsave("), part.count("\nsave(")) == (2, 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (json.dumps({"prompt": EXAMPLES["mixed_with_comfyui_nodes"]}).encode(), "CheckpointLoaderSimple"),
        (b'{"prompt": 1}', "no graph"),
        (b"[]", "no graph"),
        (b"\xff{", "no JSON"),
    ],
)
def test_what_can_not_be_written_is_said(monkeypatch: pytest.MonkeyPatch, body: bytes, said: str) -> None:
    status, text = ask(monkeypatch, body)
    assert status == 400
    assert said in text


def test_a_host_without_a_server_has_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    import server

    monkeypatch.delattr(server.PromptServer, "instance", raising=False)
    exported_script.add_route()
