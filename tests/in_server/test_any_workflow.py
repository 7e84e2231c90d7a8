"""Random workflows: each ends in a result or in an error that names the input, and the server keeps working."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from support import any_workflow
from support.any_workflow import Prompt, workflows, write_odd_files
from support.graph import Graph, saved

PARTS = 4
COUNT = int(os.environ.get("RELAY_WORKFLOWS", "600"))
"""The total number of workflows."""
TIMEOUT = 60
OURS = "Relay"
OF_THE_PACK = ("diffusers_relay.RelayError", "diffusers_relay.MissingFiles")


@pytest.fixture(scope="module")
def own_server(models: SmallModels) -> Iterator[HostServer]:
    odd = Path(any_workflow.__file__).with_name("odd_values")
    with HostServer(models=models.models, environment=models.environment(), other_packs={"odd-values": odd}) as running:
        yield running


def good_picture(server: HostServer) -> np.ndarray:
    graph = Graph()
    model = graph.load("sd15")
    latent = graph.text_to_image(model, graph.encode(model, "a red++ cat"), steps=2, seed=3)
    node = graph.save(graph.decode(model, latent))
    return saved(server.run(graph.prompt), node)


def outcome(server: HostServer, info: Mapping[str, Any], prompt: Prompt) -> str:
    """A short label for the workflow's result."""
    try:
        result = server.run(prompt, timeout=TIMEOUT)
    except PromptRejected as refused:
        check_refusal(refused)
        return "refused"
    assert not result.interrupted
    if result.error is None:
        return "a result"
    if not result.error.node_type.startswith(OURS):
        return "an error from the host"
    assert result.error.exception_type in OF_THE_PACK, result.error.traceback
    inputs = {key for group in ("required", "optional") for key in info[result.error.node_type]["input"].get(group, {})}
    named = re.search(rf"\b({'|'.join(inputs)})\b", result.error.message)
    assert named, f"{result.error.node_type} names none of {sorted(inputs)}: {result.error.message}"
    return "an error"


def check_refusal(refused: PromptRejected) -> None:
    for errors in refused.node_errors.values():
        for error in errors["errors"]:
            assert error["extra_info"].get("input_name") or error["details"], error


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1024


@pytest.mark.parametrize("part", range(PARTS))
def test_every_workflow_ends_well(own_server: HostServer, part: int) -> None:
    server, info = own_server, own_server.object_info()
    files = write_odd_files(server.folders["input"])
    before, counts, memory = good_picture(server), Counter(), []

    @seed(part)
    @settings(
        max_examples=COUNT // PARTS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(workflows(info, files))
    def one(prompt: Prompt) -> None:
        counts[outcome(server, info, prompt)] += 1
        if counts.total() % 100 == 0:
            assert np.array_equal(good_picture(server), before)
            memory.append(round(resident_mb(server.pid)))

    one()
    assert np.array_equal(good_picture(server), before)
    print(f"part {part}: {dict(counts)}; MB after each hundred: {memory}")
    assert counts["a result"] > 0.2 * counts.total()
    assert counts["an error"] > 0.1 * counts.total()
