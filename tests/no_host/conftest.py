"""Tests of the pack's lower layers, without a host."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from relay_dev.model_folders import SmallModels
from support.checkpoints import SmallCheckpoints, make_small_checkpoints
from support.versions import WITH_SD3_BLOCKS

if TYPE_CHECKING:
    from diffusers_relay.pipelines.files.registry import ComponentRegistry

collect_ignore = [] if WITH_SD3_BLOCKS else ["test_stable_diffusion_3.py"]


@pytest.fixture(autouse=True)
def nothing_encoded() -> None:
    """Each test counts its own encodings."""
    from diffusers_relay.pipelines.base.encoded_once import ENCODED

    ENCODED.clear()


@pytest.fixture
def inference_mode() -> Iterator[None]:
    """Runs the test in inference mode, as the host runs nodes."""
    import torch

    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def small(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> SmallCheckpoints:
    """Small checkpoint files, made once."""
    return make_small_checkpoints(tmp_path_factory.mktemp("checkpoints"), models)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> "ComponentRegistry":
    """A registry for the parts of files that this test alone uses, so that it can count what is loaded."""
    from diffusers_relay.pipelines.files.registry import ComponentRegistry
    from diffusers_relay.pipelines.loading import file_part, single_file

    registry = ComponentRegistry()
    for module in (single_file, file_part):
        monkeypatch.setattr(module, "REGISTRY", registry)
    return registry


@pytest.fixture
def library_warnings() -> Iterator[list[str]]:
    """Messages that diffusers and transformers log at WARNING and above; they don't propagate to the root logger."""
    seen: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield seen
    for logger in loggers:
        logger.removeHandler(handler)
