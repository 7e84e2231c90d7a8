"""Progress, previews and cancel, as the page receives them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, saved
from support.sampling import KINDS, sampling_graph

MANY = 400
"""Enough steps for a cancel in the middle."""
PREVIEW_SIZE = (512, 512)
"""The host's default size for previews."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_reported(server: HostServer, kind: str) -> None:
    graph, node, _ = sampling_graph(server, kind, 6)
    result = server.run(graph.prompt).raise_for_error()
    reports = [report for report in result.progress if report.node_id == node.node]
    values = [report.value for report in reports]
    assert values == sorted(values)
    assert len(values) >= 6
    assert values[-1] == reports[-1].maximum


PREVIEWED = ["sd15", "refiner", "kandinsky", "kandinsky depth", "kandinsky depth to image", "x2", "x4", "x4 in tiles"]
PREVIEWED += ["kandinsky inpaint"]


@pytest.mark.parametrize("kind", PREVIEWED)
def test_previews_show_the_run(server: HostServer, kind: str) -> None:
    graph, _, _ = sampling_graph(server, kind, 7)
    result = server.run(graph.prompt).raise_for_error()
    assert len(result.previews) >= 6
    picture = Image.open(io.BytesIO(result.previews[-1]))
    assert picture.size[0] == picture.size[1] or kind == "x4 in tiles"
    assert np.array(picture.convert("RGB")).std() > 5


def grey(latents: torch.Tensor) -> np.ndarray:
    """The host's preview of Stable Diffusion 1.5 latents in model scale, from the published colour factors."""
    factors = torch.tensor(
        [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]]
    )
    pixels = ((latents[0].movedim(0, -1).float() @ factors + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8).numpy()
    picture = Image.fromarray(pixels).resize(PREVIEW_SIZE, Image.Resampling.BILINEAR)
    return np.array(picture.convert("L")).astype(float)


def test_previews_are_of_the_clean_picture_that_each_step_predicts(server: HostServer, models: SmallModels) -> None:
    """Euler's first latents have fourteen times a picture's deviation and would look like black and white dots."""
    graph = Graph()
    model = graph.load("sd15")
    choice = {"scheduler": "EulerDiscreteScheduler", "sigmas": "default", "timestep_spacing": "default"}
    euler = graph.add("RelaySetScheduler", model=model, **choice)
    settings = {"steps": 6, "seed": 4, "width": 128, "height": 128}
    graph.save(graph.decode(euler, graph.text_to_image(euler, graph.encode(euler, "a cat"), **settings)))
    result = server.run(graph.prompt).raise_for_error()
    shown = [np.array(Image.open(io.BytesIO(preview)).convert("L")).astype(float) for preview in result.previews]

    predicted, noisy = scripts.sd15_euler_predictions(models.named["sd15"], "a cat", **settings)
    assert len(shown) == len(predicted) == 6
    for picture, clean in zip(shown, predicted):
        assert np.abs(picture - grey(clean)).mean() < 4, "only JPEG artefacts may differ"
    assert np.abs(shown[0] - grey(noisy[0])).mean() > 20


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_stops_within_a_step_and_the_next_run_works(server: HostServer, kind: str) -> None:
    graph, node, _ = sampling_graph(server, kind, MANY)
    pending = server.queue(graph.prompt)

    def steps_of(run: Any) -> list[float]:
        return [report.value for report in run.progress if report.node_id == node.node]

    server.wait_until(pending, lambda run: len(steps_of(run)) >= 3)
    seen = steps_of(pending)[-1]
    server.interrupt()
    result = server.wait(pending)
    assert result.interrupted
    assert result.error is None, "a cancel isn't an error"
    assert result.executed[-1] == node.node
    # Messages already on their way when the cancel was sent may arrive late; the run itself doesn't continue.
    assert steps_of(result)[-1] < MANY / 2, f"cancelled at {seen}"
    graph, _, saving = sampling_graph(server, kind, 3)
    assert saved(server.run(graph.prompt), saving).std() > 10
