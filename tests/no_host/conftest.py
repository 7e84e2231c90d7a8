"""Tests of the pack's lower layers, with no host."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_encoded() -> None:
    """Each test counts its own encodings."""
    from diffusers_relay.pipelines.base.encoded_once import ENCODED

    ENCODED.clear()


@pytest.fixture
def inference_mode() -> Iterator[None]:
    """As the host runs nodes."""
    import torch

    with torch.inference_mode():
        yield
