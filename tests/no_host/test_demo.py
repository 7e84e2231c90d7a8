"""The demo's server: it has the small models with a notice on the page, or the published models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relay_dev import demo
from relay_dev.examples.parts import EXAMPLE_PICTURE
from relay_host.server import HostServer
from tiny_world.judge import agrees, look


class NotStarted(Exception):
    pass


@pytest.fixture
def started_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {}

    def server(**arguments: Any) -> HostServer:
        given.update(arguments)
        raise NotStarted

    monkeypatch.setattr(demo, "HostServer", server)
    return given


def test_it_uses_the_small_models_and_says_so_on_the_page(started_with: dict[str, Any]) -> None:
    with pytest.raises(NotStarted):
        demo.main(["sd15_image"])
    assert started_with["environment"]["HF_HUB_OFFLINE"] == "1"
    (notice,) = started_with["other_packs"].values()
    script = (notice / "web" / "notice.js").read_text("utf-8")
    assert "stand-ins" in script and "--published" in script


@pytest.mark.parametrize("options", [[], ["--published"]])
def test_its_nodes_show_what_they_are_painting(started_with: dict[str, Any], options: list[str]) -> None:
    with pytest.raises(NotStarted):
        demo.main(options)
    assert started_with["arguments"] == ("--preview-method", "auto")


def test_one_switch_uses_the_published_models(started_with: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NotStarted):
        demo.main(["--published", "--models", str(tmp_path)])
    assert started_with["models"] == tmp_path
    assert "environment" not in started_with and "other_packs" not in started_with


def test_a_models_folder_is_for_the_published_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--models", str(tmp_path)])
    assert "--models needs --published" in capsys.readouterr().err


def test_what_is_asked_for_has_to_be_there() -> None:
    with pytest.raises(SystemExit, match="No example begins with 'nothing'"):
        demo.main(["nothing"])


def test_the_examples_begin_with_a_picture_of_the_small_models_world(tmp_path: Path) -> None:
    """White on black, so it also works as a depth map."""
    demo.draw_example(tmp_path)
    with Image.open(tmp_path / EXAMPLE_PICTURE) as picture:
        assert agrees(look(np.asarray(picture) / 255), demo.EXAMPLE)


def test_the_examples_that_the_docstring_names_are_there() -> None:
    named = re.findall(r"dev\.py demo (\w+)", str(demo.__doc__))
    assert named
    assert all(demo.chosen_workflows([name]) for name in named)
