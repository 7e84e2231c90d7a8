"""Checks that a graph's script gives the graph's picture, and that a changed script does not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer

from .script_graphs import GRAPHS
from .script_runs import differences, pictures_of, run_scripts, written


def check_graphs(server: HostServer, models: SmallModels, workplace: Path, *, changes: int | None = None) -> None:
    """For each graph of script_graphs, and for its first ``changes`` changes (None: all)."""
    texts: dict[str, str] = {}
    expected: dict[str, list[np.ndarray]] = {}
    changed: dict[str, tuple[str, str]] = {}
    for kind, make in GRAPHS.items():
        graph, known = make(server)
        expected[kind] = pictures_of(server, graph.prompt)
        texts[kind] = written(graph.prompt, models)
        for number, (before, after) in enumerate(islice(known.items(), changes)):
            assert before in texts[kind], f"{kind}: the script has no {before}"
            name = f"{kind}-{number}"
            texts[name] = texts[kind].replace(before, after)
            changed[name] = kind, f"{before} -> {after}"
    runs = run_scripts(texts, workplace, server.folders["input"], models)
    for kind, pictures in expected.items():
        assert not runs[kind].error, f"{kind}: {runs[kind].error}"
        found = differences(pictures, runs[kind].pictures)
        print(f"{kind}: {found}", flush=True)
        assert all(one.is_rounding for one in found), f"{kind}: {found}"
        assert all(one.std() > 5 for one in pictures), f"{kind}: a flat picture proves nothing"
    for name, (kind, what) in changed.items():
        assert not runs[name].error, f"{kind}: {what}: {runs[name].error}"
        found = differences(expected[kind], runs[name].pictures)
        assert not all(one.is_rounding for one in found), f"{kind}: the comparison doesn't see {what}"
