"""Tests of the pack's lower layers, with no host."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def inference_mode() -> Iterator[None]:
    """As the host runs nodes."""
    import torch

    with torch.inference_mode():
        yield
