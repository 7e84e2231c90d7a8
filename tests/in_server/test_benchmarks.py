"""The benchmarks' graphs and step times in the real server, and one whole benchmark through the command."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as bench
from relay_dev.model_folders import SmallModels
from relay_host.pack import prepare_benchmarks
from relay_host.server import HostServer

prepare_benchmarks()

from benchmarks import command  # noqa: E402
from benchmarks.chain import LINKS, chain  # noqa: E402
from benchmarks.graphs import PICTURE, Request, native_graph, relay_graph, write_picture  # noqa: E402
from benchmarks.models import BenchModel  # noqa: E402
from benchmarks.never_twice import STRENGTHS, sweep  # noqa: E402
from benchmarks.served import quantities, timed  # noqa: E402

REQUEST = Request(3, 0.6)


@pytest.fixture(scope="module")
def model(server: HostServer, models: SmallModels) -> BenchModel:
    write_picture(server.folders["input"] / PICTURE, 64)
    return BenchModel("sd15", "sd15", models.models, 64, "float32")


def test_a_graph_is_timed_step_by_step(server: HostServer, model: BenchModel) -> None:
    built = relay_graph(model, REQUEST)
    run = timed(server, built.prompt)
    assert list(run.step_times[built.sampler]) == [1, 2, 3]
    assert run.result.images(built.saved)
    found = quantities(server, relay_graph(model, REQUEST.with_seed(1)))
    assert 0 < 2 * found["denoising"] < found["whole"]


def test_the_native_graph_does_as_many_steps(server: HostServer, models: SmallModels, model: BenchModel) -> None:
    native = BenchModel("sd15", "relay_native_sd15", models.models, 64, "float32")
    built = native_graph(native, REQUEST)
    assert list(timed(server, built.prompt).step_times[built.sampler]) == [1, 2, 3]


def test_the_chains_and_the_sweep_run(server: HostServer, model: BenchModel) -> None:
    for in_latents, from_picture in ((True, True), (False, True), (True, False)):
        run = timed(server, chain(model, Request(2, 0.5, seed=77), in_latents, from_picture=from_picture))
        samplers = [times for times in run.step_times.values() if len(times) > 1]
        assert len(samplers) == LINKS or run.result.cached
    outputs = timed(server, sweep(model)).result.outputs
    assert len([output for output in outputs.values() if output.get("images")]) == len(STRENGTHS)


def test_the_cheapest_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["startup", "--tiny"]) == 0
    assert "import of the pack in the host" in capsys.readouterr().out
    kept = json.loads((command.BENCH / "results-tiny.json").read_text("utf-8"))["startup"]
    (row,) = kept["rows"]
    assert 0 < row["ours"] < 60
    assert (command.BENCH / "results-tiny.md").read_text("utf-8").count("### startup") == 1
