"""Tests of the batch package. Those that need Ray, S3 or Parquet use its own environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from support.batch_libraries import batch_libraries
from support.machines import obstacle

OBSTACLE = obstacle()
collect_ignore = ["test_ray_machines.py"] if OBSTACLE else []
if OBSTACLE:
    print(f"tests/batch/test_ray_machines.py can't run here and has not passed: {OBSTACLE}", file=sys.stderr)


@pytest.fixture(scope="module")
def libraries() -> Iterator[None]:
    """pyarrow and boto3."""
    with batch_libraries():
        yield
