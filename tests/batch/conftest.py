"""Tests of the batch package. Those that need Ray, S3 or Parquet use its own environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.batch_libraries import batch_libraries


@pytest.fixture(scope="module")
def libraries() -> Iterator[None]:
    """pyarrow and boto3."""
    with batch_libraries():
        yield
