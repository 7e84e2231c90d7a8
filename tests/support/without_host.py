"""Runs the pack's lower layers without a host: models, and a runtime that counts the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.weighting.compel_encoder import encode_prompt
from relay_dev.model_folders import small_models


class CountingOffload(PlainOffload):
    """Counts the stages, and rejects a module that another stage is using."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.stages: Counter[Stage] = Counter()

    @contextmanager
    def on_device(self, stage: Stage, modules: Iterable[Any], working_bytes: int = 0) -> Iterator[torch.device]:
        self.stages[stage] += 1
        with super().on_device(stage, list(modules), working_bytes) as device:
            yield device


class ListeningMonitor(SilentMonitor):
    """Records what a user would see. stop_after: raise Stopped after that many progress reports. previews: ask for previews."""

    def __init__(self, stop_after: int | None = None, previews: bool = False) -> None:
        self._previews = previews
        self.said: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.previewed: list[torch.Tensor] = []
        self._stop_after = stop_after

    def expect_latents(self) -> bool:
        return self._previews

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self.steps.append((done, total))
        if latents is not None:
            self.previewed.append(latents)
        if self._stop_after is not None and len(self.steps) >= self._stop_after:
            raise Stopped

    def say(self, message: str) -> None:
        self.said.append(message)


class Stopped(Exception):
    """Stands for a user's cancel."""


def counting_runtime(stop_after: int | None = None, previews: bool = False) -> Runtime:
    return Runtime(CountingOffload(), ListeningMonitor(stop_after, previews))


@cache
def load(name: str, dtype: torch.dtype = torch.float32) -> PipelineComponents:
    """A small model, loaded once for all tests of a process: don't change it."""
    return load_folder(small_models().named[name], dtype=dtype, source=name, monitor=SilentMonitor())


def encode(model: PipelineComponents, prompt: str, negative_prompt: str = "") -> PromptEmbeds:
    """Encodes with the text encoders' current weights, without the cache."""
    ENCODED.clear()
    return encode_prompt(
        model, prompt, negative_prompt, syntax="compel", runtime=Runtime(PlainOffload(), SilentMonitor())
    )
