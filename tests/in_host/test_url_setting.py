"""Whether pictures may be downloaded at all, and that they equal the output of the host's own node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusers_relay.pipelines.base.errors import RelayError
from reference.scripts import soft_picture
from support.picture_server import Door, body, picture_server

PUBLIC = "https://example.com/cat.png"


@pytest.fixture
def node() -> Any:
    from diffusers_relay.nodes.images import RelayLoadImageFromUrl

    return RelayLoadImageFromUrl


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Any:
    from comfy.cli_args import args

    monkeypatch.delenv("RELAY_ALLOW_URL", raising=False)
    return lambda where: monkeypatch.setattr(args, "listen", where)


@pytest.mark.parametrize("where", ["127.0.0.1", "localhost", "::1", "127.0.0.1,::1", "127.3.2.1"])
def test_a_server_for_this_machine_alone_may(node: Any, listen: Any, where: str) -> None:
    listen(where)
    assert node.validate_inputs(url=PUBLIC) is True


@pytest.mark.parametrize("where", ["0.0.0.0", "0.0.0.0,::", "::", "192.168.1.5", "127.0.0.1,192.168.1.5", "my-pc", ""])
def test_a_server_for_others_may_when_it_is_told_so(
    node: Any, listen: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(where)
    for value in (None, "0", "", "yes"):
        if value is not None:
            monkeypatch.setenv("RELAY_ALLOW_URL", value)
        assert "RELAY_ALLOW_URL=1" in node.validate_inputs(url=PUBLIC)
        with pytest.raises(RelayError, match="RELAY_ALLOW_URL=1 and restart"):
            node.execute(url=PUBLIC)  # where the address comes over a wire
    monkeypatch.setenv("RELAY_ALLOW_URL", "1")
    assert node.validate_inputs(url=PUBLIC) is True
    assert "not file:" in node.validate_inputs(url="file:///etc/passwd")


def test_picture_and_mask_are_those_of_load_image(node: Any, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from nodes import LoadImage

    from diffusers_relay.pipelines.downloads import url_fetch

    listen("127.0.0.1")
    picture = soft_picture(40, 24).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((40, 24)))
    file = Path(folder_paths.get_input_directory()) / "for-url.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    theirs = LoadImage().load_image(file.name)
    with picture_server() as server:
        server.answers["/cat"] = body(file.read_bytes())
        # The node can only reach the public internet; this replaces it with the test's own server.
        monkeypatch.setattr("diffusers_relay.nodes.images._check_url", lambda url: None)
        monkeypatch.setattr(url_fetch, "Internet", Door)
        mine = node.execute(url=server.url("/cat")).result
    assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])
