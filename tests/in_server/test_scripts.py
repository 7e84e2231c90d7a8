"""Graphs written as scripts: the scripts, run by themselves, give the graphs' pictures.

Here is a graph of each kind; `python dev.py scripts` runs all examples and random graphs, see every_script.py.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from relay_batch.node_table import NodeTable
from relay_batch.ui_convert import convert
from relay_dev.model_folders import SmallModels
from relay_host.paths import ROOT
from relay_host.server import HostServer
from support.script_checks import check_graphs
from support.script_runs import RECORDED

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


def test_a_graph_of_each_kind(server: HostServer, models: SmallModels, tmp_path: Path) -> None:
    """And that a change of one argument is seen; every_script.py tries all changes."""
    check_graphs(server, models, tmp_path / "scripts", changes=1)


def test_the_recorded_prompts_are_those_of_the_examples(server: HostServer) -> None:
    """tests/no_host/test_script_writing.py has no host to convert them with. An input that a node gets later may be missing."""
    table = NodeTable(server.object_info())
    recorded = json.loads(RECORDED.read_text("utf-8"))
    for file in EXAMPLES:
        made = convert(json.loads(file.read_text("utf-8")), table, datetime(2026, 1, 1)).prompt
        assert recorded[file.stem].keys() == made.keys()
        for id, node in recorded[file.stem].items():
            now = made[id]
            assert node | {"inputs": now["inputs"]} == now
            assert all(now["inputs"][name] == value for name, value in node["inputs"].items())
