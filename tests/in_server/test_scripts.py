"""Graphs written as scripts: the scripts, run by themselves, give the graphs' pictures.

Here is a graph of each kind; `python dev.py scripts` runs all examples and random graphs, see every_script.py.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np

from relay_batch.node_table import NodeTable
from relay_batch.ui_convert import convert
from relay_dev.model_folders import SmallModels
from relay_host.paths import ROOT
from relay_host.server import HostServer
from support.script_graphs import GRAPHS
from support.script_runs import RECORDED, differences, pictures_of, run_scripts, written

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


def test_a_graph_of_each_kind(server: HostServer, models: SmallModels, tmp_path: Path) -> None:
    """And that a change of one argument is seen."""
    texts: dict[str, str] = {}
    expected: dict[str, list[np.ndarray]] = {}
    changed: dict[str, str] = {}
    for kind, make in GRAPHS.items():
        graph, changes = make(server)
        expected[kind] = pictures_of(server, graph.prompt)
        texts[kind] = written(graph.prompt, models)
        for number, (before, after) in enumerate(changes.items()):
            assert before in texts[kind], f"{kind}: the script has no {before}"
            name = f"{kind}-{number}"
            texts[name] = (
                texts[kind].replace(before, after, 1)
                if before != "guidance_scale=4"
                else texts[kind].replace(before, after)
            )
            changed[name] = f"{kind}: {before} -> {after}"
    runs = run_scripts(texts, tmp_path / "scripts", server.folders["input"], models)
    for kind in GRAPHS:
        assert not runs[kind].error, f"{kind}: {runs[kind].error}"
        found = differences(expected[kind], runs[kind].pictures)
        assert all(one.is_rounding for one in found), f"{kind}: {found}"
        assert all(one.std() > 5 for one in expected[kind]), f"{kind}: a flat picture proves nothing"
    for name, what in changed.items():
        run, kind = runs[name], name.split("-")[0]
        if not run.error and len(run.pictures) == len(expected[kind]):
            assert not all(one.is_rounding for one in differences(expected[kind], run.pictures)), f"nobody sees {what}"


def test_the_recorded_prompts_are_those_of_the_examples(server: HostServer) -> None:
    """tests/no_host/test_script_writing.py has no host to convert them with."""
    table = NodeTable(server.object_info())
    made = {
        file.stem: convert(json.loads(file.read_text("utf-8")), table, datetime(2026, 1, 1)).prompt for file in EXAMPLES
    }
    assert json.loads(RECORDED.read_text("utf-8")) == made
