"""The examples as they are painted: no node covers another, each is inside its group, and no wire runs behind a node.

"With previews" means: the page gets the server's messages of a run (previews, texts, pictures), but nothing runs.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from relay_dev.boxes import A_NOTE, groups, show_a_run, titled_boxes, wires_behind
from relay_host.page import HostPage
from relay_host.paths import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


def faults(page: HostPage) -> list[str]:
    shown = titled_boxes(page)
    frames = groups(page)
    found = [f"{one} covers {other}" for one, other in combinations(shown, 2) if shown[one].overlaps(shown[other])]
    for name, box in shown.items():
        around = [title for title, group in frames.items() if group.overlaps(box)]
        inside = [title for title, group in frames.items() if group.encloses(box)]
        if around != inside or len(around) != (0 if "About this workflow" in name else 1):
            found.append(f"{name} is in {inside} and touches {around}")
    return found + wires_behind(page)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_nothing_covers_anything(page: HostPage, file: Path) -> None:
    page.load_workflow(json.loads(file.read_text("utf-8")))
    page.fit_view()
    assert faults(page) == []
    show_a_run(page, text=A_NOTE)
    assert faults(page) == []
