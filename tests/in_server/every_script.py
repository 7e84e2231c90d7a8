"""Every example, and random graphs, written as scripts that give the graphs' pictures: `python dev.py scripts`.

It takes too long for the normal run, which has test_scripts.py. RELAY_SCRIPTS is the number of random graphs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from diffusers_relay.script.errors import NoScript
from relay_dev.demo import draw_example
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from support.any_workflow import MODELS, Builder, write_odd_files
from support.script_runs import NOT_WRITTEN, RECORDED, differences, pictures_of, run_scripts, written

COUNT = int(os.environ.get("RELAY_SCRIPTS", "200"))


@pytest.mark.timeout(6 * 3600)
def test_every_example(server: HostServer, models: SmallModels, tmp_path: Path) -> None:
    draw_example(server.folders["input"])
    prompts = json.loads(RECORDED.read_text("utf-8"))
    table, bad = [], []
    for name, prompt in prompts.items():
        if name in NOT_WRITTEN:
            with pytest.raises(NoScript, match=NOT_WRITTEN[name]):
                written(prompt, models)
            continue
        expected = pictures_of(server, prompt, 1200)
        run = run_scripts({name: written(prompt, models)}, tmp_path / name, server.folders["input"], models)[name]
        found = [] if run.error else differences(expected, run.pictures)
        table.append(f"{name}: {', '.join(f'{one.largest} in {one.share:.1e}' for one in found) or run.error}")
        print(table[-1], flush=True)
        if run.error or not all(one.is_rounding for one in found):
            bad.append(table[-1])
    assert not bad


@pytest.mark.timeout(6 * 3600)
def test_random_graphs(server: HostServer, models: SmallModels, tmp_path: Path) -> None:
    """Valid graphs of the generator in any_workflow: those that end in a picture."""
    info, files = server.object_info(), write_odd_files(server.folders["input"])
    known = {name: info[name] for name in info if not name.startswith("Odd")}
    expected: dict[str, list[np.ndarray]] = {}
    texts: dict[str, str] = {}
    refused: Counter[str] = Counter()
    number = 0
    while len(texts) < COUNT:
        number += 1
        random = Random(number)
        builder = Builder(random, known, files, random.choice(MODELS), spoilt=False)
        try:
            prompt = random_prompt(builder)
        except KeyError:  # a node of the tests' own pack, which this server lacks
            continue
        try:
            pictures = pictures_of(server, prompt)
        except (AssertionError, PromptRejected):  # no valid graph
            continue
        try:
            text = written(prompt, models)
        except NoScript as error:
            refused[str(error).split(":", 1)[-1].strip()[:90]] += 1
            continue
        texts[f"random-{number}"], expected[f"random-{number}"] = text, pictures
    runs = run_scripts(texts, tmp_path / "scripts", server.folders["input"], models)
    equal, bad = Counter[str](), []
    for name, run in runs.items():
        if run.error or len(run.pictures) != len(expected[name]):
            bad.append(f"{name}: {run.error or 'another number of pictures'}")
            continue
        found = differences(expected[name], run.pictures)
        if all(one.is_none for one in found):
            equal["no difference"] += 1
        elif all(one.is_rounding for one in found):
            equal["within rounding"] += 1
        else:
            bad.append(f"{name}: {found}")
    print(f"{len(texts)} of {number} graphs: {dict(equal)}, {len(bad)} differ; not written: {dict(refused)}")
    for line in bad:
        print(line[-700:])
    assert not bad


def random_prompt(builder: Builder) -> dict[str, Any]:
    links = [builder.node("RelayDecode", 5), 0]
    builder.prompt["out"] = {"class_type": "PreviewImage", "inputs": {"images": links}}
    return builder.prompt
