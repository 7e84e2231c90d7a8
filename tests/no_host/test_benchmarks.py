"""The benchmarks' arithmetic, tables and processes. tests/in_server/test_benchmarks.py tests them in a server."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import __main__ as bench
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.loading.folder import load_folder
from relay_host.pack import prepare_benchmarks
from relay_host.paths import ROOT

prepare_benchmarks()

from benchmarks import architectures, command, counting, glibc, make_models, results, suite  # noqa: E402
from benchmarks.apart import Apart, once  # noqa: E402
from benchmarks.bare import BareForwards  # noqa: E402
from benchmarks.graphs import EULER, Request, write_picture  # noqa: E402
from benchmarks.machine import processor  # noqa: E402
from benchmarks.memory import INTERVAL_SECONDS, PeakWatcher  # noqa: E402
from benchmarks.models import BenchModel, make_once  # noqa: E402
from benchmarks.rows import Aim, Row, compared, counted, not_there  # noqa: E402
from benchmarks.script import PlainScript, script_arguments  # noqa: E402
from benchmarks.served import BenchServer  # noqa: E402
from benchmarks.settings import Settings  # noqa: E402
from benchmarks.table import cells, markdown_table, text_table  # noqa: E402
from benchmarks.timing import interleave, paired_ratio, spread  # noqa: E402
from relay_dev.model_folders import SmallModels  # noqa: E402

CLIP_VOCABULARY = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
"""CLIP's published vocabulary, which the benchmarks' tokenizers have."""


def test_contenders_take_turns_and_the_warm_up_is_forgotten() -> None:
    order: list[str] = []

    def contender(name: str, seconds: float):
        def turn(number: int) -> dict[str, float]:
            order.append(f"{name}{number}")
            return {"whole": seconds + number}

        return turn

    found = interleave({"a": contender("a", 10), "b": contender("b", 20)}, 2, warm_up=1, pause=lambda: None)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert found == {"a.whole": [11, 12], "b.whole": [21, 22]}


def test_a_ratio_is_the_median_of_the_pairs_ratios() -> None:
    """One round took ten times as long for everything: the ratio of the medians would be 1.5."""
    assert paired_ratio([1, 3, 30], [2, 2, 20]) == 1.5
    assert paired_ratio([10, 1, 1.1], [20, 2, 1.0]) == 0.5
    with pytest.raises(ValueError, match="measurements don't make pairs"):
        paired_ratio([1], [1, 2])
    assert spread([9, 10, 12]) == pytest.approx(0.3)


def test_a_row_of_an_interleaved_run() -> None:
    row = compared("x", {"a.s": [1.0, 2.0, 4.0], "b.s": [2.0, 2.0, 2.0]}, "a.s", "b.s", 0.9, "note")
    assert (row.ours, row.other, row.ratio, row.reached) == (2.0, 2.0, 1.0, False)
    assert row.note == "note; spread 150% and 0% in 3 rounds"


def test_a_row_says_the_page_faults_of_both_sides() -> None:
    samples = {"a.s": [1.0] * 3, "b.s": [1.0] * 3, "a.s_faults": [5000.0, 3000, 4000], "b.s_faults": [460_000.0] * 3}
    assert compared("x", samples, "a.s", "b.s").note.startswith("minor page faults per step 4,000 and 460,000; spread")
    assert "faults" not in compared("x", {key: samples[key] for key in ("a.s", "b.s")}, "a.s", "b.s").note


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc")
def test_page_faults_are_counted_as_the_system_counts_them() -> None:
    import resource

    before, counted_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, glibc.minor_faults()
    with mmap.mmap(-1, 2000 * mmap.PAGESIZE, access=mmap.ACCESS_COPY) as content:
        for page in range(0, len(content), mmap.PAGESIZE):
            content[page] = 1
    counted, after = glibc.minor_faults(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert counted_before is not None and counted is not None
    assert before <= counted_before <= counted <= after
    found = glibc.per_step("denoising", counted_before, counted, 4)
    assert list(found) == ["denoising_faults"]
    assert found["denoising_faults"] > 0
    assert glibc.per_step("denoising", None, None, 4) == {}


@pytest.mark.parametrize("default_allocator", [False, True])
def test_every_measured_process_has_the_allocator_s_setting(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, default_allocator: bool
) -> None:
    """Whatever setting this process has; only glibc has the setting."""
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    wanted = {} if default_allocator else dict(glibc.KEEPS)
    if not glibc.is_glibc():
        wanted = {"MALLOC_MMAP_MAX_": "7"}
    assert once(glibc.in_force, default_allocator=default_allocator) == wanted
    model = BenchModel("sd15", "sd15", models.models, 64, "float32")
    server = BenchServer(model, Settings(), default_allocator=default_allocator)
    try:
        assert glibc.in_force(server.environment) == wanted
    finally:
        server.close()


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("x", 1.0, 2.0, ratio=0.5, aim=Aim("ratio", 0.5)), True),
        (Row("x", 1.0, 2.0, ratio=0.51, aim=Aim("ratio", 0.5)), False),
        (counted("x", 1, 3, most=1), True),
        (counted("x", 2, 3, most=1), False),
        (counted("x", 2, 3), None),
        (Row("x", aim=Aim("ours", 0.05)), None),
        (not_there("x", "no node"), None),
    ],
)
def test_what_is_reached(row: Row, reached: bool | None) -> None:
    assert row.reached is reached
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_a_table_row_says_units_and_what_is_missed() -> None:
    row = Row("load", 12.34, 0.5, ratio=24.68, aim=Aim("ratio", 1.0), note="a|b")
    assert cells(row) == ("load", "12.3 s", "0.500 s", "24.680", "ratio <= 1, NOT reached", "a|b")
    assert markdown_table([row]).splitlines()[-1] == (
        "| load | 12.3 s | 0.500 s | 24.680 | ratio <= 1, NOT reached | a\\|b |"
    )
    assert cells(counted("encodes", 1, 3, most=1))[1:5] == ("1", "3", "", "<= 1, reached")
    assert cells(Row("peak", 4321.4, unit="MB"))[1] == "4321 MB"
    head, line = text_table([row]).splitlines()
    assert head.index("ours") == line.index("12.3 s")


def test_results_are_kept_by_benchmark_and_written_between_the_marks(tmp_path: Path) -> None:
    file, readme = tmp_path / "results.json", tmp_path / "README.md"
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n", "utf-8")
    results.store(file, "startup", [Row("import", 0.03)], "whole, 5 rounds, CPU", 0.2)
    results.store(file, "chain", [counted("VAE decodes", 2)], "whole, 5 rounds, CPU", None)
    results.store(file, "chain", [counted("VAE decodes", 1)], "whole, 5 rounds, CPU", None)
    results.write_into(readme, results.load(file))
    text = readme.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.index("### chain") < text.index("### startup"), "in the order of the suite"
    assert "| VAE decodes | 1 |" in text and "| VAE decodes | 2 |" not in text
    assert text.count(f"processor {processor()}") == 1, "the machine is shown once"
    assert "load average 0.2" in text
    results.write_into(readme, results.load(file))
    assert readme.read_text("utf-8") == text


def test_a_readme_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n", "utf-8")
    with pytest.raises(ValueError, match="once"):
        results.write_into(readme, {})
    assert readme.read_text("utf-8") == "nothing\n"


def test_list_names_all_benchmarks_and_each_has_rows_and_a_line_in_the_readme(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [*suite.BENCHMARKS, *suite.scripts()]
    readme = (ROOT / "devtools" / "benchmarks" / "README.md").read_text("utf-8")
    for name in suite.BENCHMARKS:
        assert callable(suite.rows_of(name))
        assert f"| `{name}` |" in readme
    assert '("bench",' in (ROOT / "dev.py").read_text("utf-8")


def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["speed"], "no benchmark is called speed"), (["--repeat", "0"], "at least one round")):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("run_steps", "strength", "steps"), [(4, 0.8, 5), (20, 0.8, 25), (3, 0.6, 5), (4, 1.0, 4)])
def test_a_request_has_as_many_steps_as_diffusers_needs(run_steps: int, strength: float, steps: int) -> None:
    assert Request(run_steps, strength).steps == steps
    assert int(steps * strength) == run_steps


def test_a_process_of_its_own_answers_and_its_failure_is_told() -> None:
    with Apart(Counter, cats=2, dogs=1) as apart:
        assert apart.made == {"cats": 2, "dogs": 1}
        assert apart.call("most_common", n=1) == [["cats", 2]]
        assert apart.process.pid != os.getpid()
    assert apart.process.returncode == 0
    assert once(json.loads, s='{"a": 1}') == {"a": 1}
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        once(json.loads, s="{")


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_bare_forwards_and_the_plain_script_run(models: SmallModels, tmp_path: Path, name: str) -> None:
    folder, kind = str(models.named[name]), {"dtype": "float32", "device": "cpu"}
    bare = BareForwards(folder, 64, **kind).run(2)
    assert 0 < bare["denoising"] < 60
    script = PlainScript(folder, str(write_picture(tmp_path / "picture.png", 64)), **kind)
    found = script.run(**script_arguments(Request(3, 0.6)))
    assert 0 < 2 * found["denoising"] < found["whole"]
    if glibc.minor_faults() is not None:
        assert {"denoising_faults", "whole_faults"} <= set(found)
        assert "denoising_faults" in bare


def test_a_call_inside_a_call_is_counted_once() -> None:
    class Encoder:
        def encode(self, pictures: torch.Tensor, again: bool = True) -> torch.Tensor:
            return self.encode(pictures=pictures[:1], again=False) if again else pictures

    counting.wrap(Encoder, "encode", "test")
    Encoder().encode(torch.zeros(3, 2))
    Encoder().encode(pictures=torch.zeros(1, 2), again=False)
    assert counting.take() == [("test", [3, 2]), ("test", [1, 2])]
    assert counting.take() == []


def test_the_peak_is_seen_though_it_is_given_back() -> None:
    # Map new pages: the allocator may still have enough resident memory from an earlier test.
    with PeakWatcher() as watcher, mmap.mmap(-1, 200_000_000, access=mmap.ACCESS_COPY) as content:
        for page in range(0, len(content), mmap.PAGESIZE):
            content[page] = 1
        time.sleep(40 * INTERVAL_SECONDS)  # give the watcher's thread a turn, even on a busy machine
    assert 150 < watcher.peak.private < 400
    assert watcher.peak.resident >= watcher.peak.private - 1


def test_models_are_made_as_a_folder_and_a_file_that_the_pack_loads(
    models: SmallModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses the small models' configs instead of the published ones, with the published vocabulary."""
    shutil.copytree(models.named["sd15"], tmp_path / "configs" / "sd15", ignore=shutil.ignore_patterns("*.safetensors"))
    text_config = tmp_path / "configs" / "sd15" / "text_encoder" / "config.json"
    text_config.write_text(json.dumps(json.loads(text_config.read_text("utf-8")) | CLIP_VOCABULARY), "utf-8")
    monkeypatch.setattr(make_models, "CONFIGS", tmp_path / "configs")
    target, file = tmp_path / "made", tmp_path / "made.safetensors"
    make_once(target, lambda folder: make_models.make_stable_diffusion(folder, "sd15", torch.float16))
    make_once(file, lambda scratch: make_models.write_checkpoint(target, scratch))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "made", "made.safetensors"]
    made = load_folder(target, dtype=torch.float32, monitor=SilentMonitor())
    assert made.modules["scheduler"].__class__.__name__ == EULER
    assert made.modules["tokenizer"].model_max_length == 77
    tensors = load_file(file)
    assert torch.equal(tensors["model.diffusion_model.out.2.weight"].float(), made.modules["unet"].conv_out.weight)
    assert tensors["model.diffusion_model.out.2.weight"].dtype == torch.float16

    def never(_: Path) -> None:
        raise AssertionError("it already exists")

    make_once(target, never)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sdxl_refiner"])
def test_the_pack_has_the_configs_of_every_model_that_is_made(kind: str) -> None:
    index = json.loads((make_models.CONFIGS / kind / "model_index.json").read_text("utf-8"))
    parts = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    assert "unet" in parts
    assert all(list((make_models.CONFIGS / kind / name).glob("*config.json")) for name in parts)


def test_a_model_that_failed_to_be_made_is_not_taken_for_one(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once(tmp_path / "made", fail)
    make_once(tmp_path / "made", Path.mkdir)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_kandinsky_is_made_as_folders_that_the_pack_loads(
    models: SmallModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, part in (("DECODER_UNET", "kandinsky_decoder/unet"), ("MOVQ", "kandinsky_decoder/movq")):
        monkeypatch.setattr(architectures, name, config_of(models, part))
    for name, part in (("PRIOR", "prior"), ("VISION", "image_encoder"), ("BIG_TEXT", "text_encoder")):
        monkeypatch.setattr(architectures, name, config_of(models, f"kandinsky_prior/{part}"))
    monkeypatch.setattr(architectures, "BIG_TEXT", architectures.BIG_TEXT | CLIP_VOCABULARY)
    monkeypatch.setattr(architectures, "VISION", architectures.VISION | {"image_size": 224})
    make_models.make_kandinsky_decoder(tmp_path / "decoder", torch.float32)
    make_models.make_kandinsky_prior(tmp_path / "prior", torch.float32)
    made = [load_folder(tmp_path / name, dtype=torch.float32, monitor=SilentMonitor()) for name in ("decoder", "prior")]
    assert [components.family.name for components in made] == ["kandinsky22", "kandinsky22-prior"]
    assert all(value.isfinite().all() for value in made[1].modules["prior"].parameters())


def config_of(models: SmallModels, part: str) -> dict[str, object]:
    return json.loads((models.named["sd15"].parent / part / "config.json").read_text("utf-8"))
