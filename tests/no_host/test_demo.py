"""What the demo starts its server with: the small models and a word about them on the page, or the published models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay_dev import demo
from relay_dev.server import HostServer


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


def test_one_switch_uses_the_published_models(started_with: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NotStarted):
        demo.main(["--published", "--models", str(tmp_path)])
    assert started_with["models"] == tmp_path
    assert "environment" not in started_with and "other_packs" not in started_with


def test_a_models_folder_is_for_the_published_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--models", str(tmp_path)])
    assert "--models goes with --published" in capsys.readouterr().err


def test_what_is_asked_for_has_to_be_there() -> None:
    with pytest.raises(SystemExit, match="No example begins with 'nothing'"):
        demo.main(["nothing"])
