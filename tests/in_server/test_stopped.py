"""A cancel at every stage of every denoising run, and an unreadable file: nothing is lost, and the next run is correct.

The server itself triggers the action at a given moment: see support/stopper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.sampling import KINDS, sampling_graph
from support.server_log import lines_during, stages_during

STOPPER = Path(__file__).parents[1] / "support" / "stopper"
STEPS = 4

Moment = dict[str, Any]

LOAD: Moment = {"after": [r"loaded \w+ of"]}
TEXT: Moment = {"after": ["stage text"], "layer": "^CLIPEncoderLayer$", "count": 2}
ENCODE: Moment = {"after": ["stage vae"], "layer": "^ResnetBlock"}
WITH_PICTURE = [kind for kind in KINDS if not kind.endswith("to image") and not kind.startswith("x4")]


def denoising(kind: str) -> list[str]:
    """The log lines before the node's own steps: Kandinsky's prior has steps too."""
    return ["stage denoise"] * (2 if kind.startswith("kandinsky") and kind != "kandinsky prior" else 1)


def decoding(kind: str) -> Moment:
    lines = [*denoising(kind), "stage vae"]
    if kind == "kandinsky prior":
        lines[:1] = ["stage denoise"] * 2
    return {"after": lines, "layer": "^ResnetBlock", "count": 3}


MOMENTS = [
    *((kind, "load", LOAD) for kind in KINDS),
    *((kind, "text", TEXT) for kind in KINDS),
    *((kind, "encode", ENCODE) for kind in WITH_PICTURE),
    *((kind, "first step", {"steps": 0.01}) for kind in KINDS),
    *((kind, "middle step", {"steps": 0.5}) for kind in KINDS),
    *((kind, "last step", {"steps": 1.0}) for kind in KINDS),
    ("x4 in tiles", "tile", {"after": ["stage denoise"], "layer": "^UNet2DConditionModel$", "count": 3}),
    *((kind, "decode", decoding(kind)) for kind in KINDS),
]


@pytest.fixture(scope="module")
def stopping(models: SmallModels) -> Iterator[HostServer]:
    """A server that can be stopped at a given moment."""
    with HostServer(
        models=models.models,
        environment=models.environment(),
        arguments=("--verbose", "DEBUG"),
        other_packs={"stopper": STOPPER},
    ) as running:
        yield running


@dataclass(frozen=True)
class Undisturbed:
    picture: np.ndarray
    steps: float
    """The number of steps that the denoising node reports."""


@pytest.fixture(scope="module")
def undisturbed(stopping: HostServer) -> dict[str, Undisturbed]:
    """{kind: the result of an undisturbed run}"""
    found = {}
    for kind in KINDS:
        graph, node, saving = sampling_graph(stopping, kind, STEPS)
        result = stopping.run(graph.prompt)
        reports = [report for report in result.progress if report.node_id == node.node]
        found[kind] = Undisturbed(saved(result, saving), reports[-1].maximum)
    return found


def arm(server: HostServer, moment: Moment, do: str = "cancel") -> None:
    assert server.post("/stopper", {**moment, "do": do})[0] == 200


def happened(server: HostServer) -> bool:
    return bool(server.get("/stopper")["happened"])


def layers_since(server: HostServer) -> int:
    return int(server.get("/stopper")["layers_since"])


def held(server: HostServer) -> dict[str, Any]:
    return dict(server.get("/stopper/held"))


@pytest.mark.parametrize(("kind", "stage", "moment"), MOMENTS, ids=[f"{kind}: {stage}" for kind, stage, _ in MOMENTS])
def test_cancel(
    stopping: HostServer, undisturbed: dict[str, Undisturbed], kind: str, stage: str, moment: Moment
) -> None:
    graph, _, saving = sampling_graph(stopping, kind, STEPS)
    if "steps" in moment:
        moment = {"after": denoising(kind), "steps": max(1, moment["steps"] * undisturbed[kind].steps)}
    stopping.free()
    arm(stopping, moment)
    with stages_during(stopping) as stages:
        result = stopping.run(graph.prompt)
        happened_in = stages()[-1:]
    assert happened(stopping)
    assert result.interrupted
    assert result.error is None, "a cancel isn't an error"
    assert saving.node not in result.executed
    if "layer" in moment:
        assert layers_since(stopping) == 0, "it stops there, not at the end of the stage"
        assert moment["after"][-1].removeprefix("stage ") == happened_in[0].split(":")[0], "no other stage began"
    before = set(result.executed[:-1])
    with lines_during(stopping) as lines:
        again = stopping.run(graph.prompt)
    assert (saved(again, saving) == undisturbed[kind].picture).all()
    assert before <= set(again.cached), "earlier results stay cached"
    assert stage == "load" or not [line for line in lines() if "loaded " in line and " of " in line]


def test_cancelled_runs_leave_nothing(stopping: HostServer) -> None:
    for kind in KINDS:
        graph, _, _ = sampling_graph(stopping, kind, STEPS)
        stopping.free()
        arm(stopping, {"after": ["stage denoise"], "steps": 2})
        assert stopping.run(graph.prompt).interrupted
        assert held(stopping)["alive"], "the prompt's models are still loaded"
        stopping.free()
        assert held(stopping) == {"loaded": 0, "alive": []}


def test_cancel_between_two_tiles_of_a_decoding(stopping: HostServer) -> None:
    """Tiling is turned off again afterwards."""

    def graph_of(tiled: bool) -> tuple[Graph, Out]:
        graph = Graph()
        model = graph.load("sd15")
        latent = graph.add("RelayEncode", model=model, image=picture(graph), seed=0)
        return graph, graph.save(graph.decode(model, latent, tiled))

    def picture(graph: Graph) -> Out:
        return graph.picture(stopping, scripts.soft_picture(640, 640), "soft-640x640.png")

    graph, saving = graph_of(False)
    whole = saved(stopping.run(graph.prompt), saving)
    graph, saving = graph_of(True)
    tiled = saved(stopping.run(graph.prompt), saving)
    assert (tiled != whole).any(), "tiled decoding must differ from decoding at once"
    stopping.free()
    arm(stopping, {"after": ["stage vae", "stage vae"], "layer": "^Decoder$", "count": 2})
    assert stopping.run(graph.prompt).interrupted
    assert happened(stopping)
    assert layers_since(stopping) == 0, "the remaining tiles are not decoded"
    assert (saved(stopping.run(graph.prompt), saving) == tiled).all()
    graph, saving = graph_of(False)
    assert (saved(stopping.run(graph.prompt), saving) == whole).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_can_not_be_read(stopping: HostServer, undisturbed: dict[str, Undisturbed], kind: str) -> None:
    """As with a lost network drive or a failing disk: the error names the file, and the next run is correct."""
    graph, _, saving = sampling_graph(stopping, kind, STEPS)
    stopping.free()
    arm(stopping, {"after": [r"loaded \w+ of"]}, "fail_to_read")
    result = stopping.run(graph.prompt)
    assert happened(stopping)
    assert result.error is not None
    assert result.error.node_type == "RelayLoadModel"
    assert result.error.message.startswith("model: ")
    assert "damaged" not in result.error.message
    assert "Input/output error. Check that its disk" in result.error.message
    assert str(stopping.base) not in result.error.message
    assert (saved(stopping.run(graph.prompt), saving) == undisturbed[kind].picture).all()
