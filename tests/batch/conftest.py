"""Tests of the batch package. Those that need Ray, S3 or Parquet use its own environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.batch_libraries import batch_libraries
from support.machines import obstacle

ON_RAY = ("test_ray_here.py", "test_ray_machines.py")
"""They start Rays, which end themselves on a machine that is busy with other tests. So they only run if they are named, as
`python dev.py test` does after the other tests (devtools/relay_dev/test.py):

    python dev.py test tests/batch/test_ray_here.py tests/batch/test_ray_machines.py
"""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name = collection_path.name
    if name not in ON_RAY:
        return None
    reason = reason_to_leave_out(name, any(name in argument for argument in config.args))
    if reason:
        print(f"tests/batch/{name} did not run and has not passed: {reason}", file=sys.stderr)
        return True
    return None


@cache
def reason_to_leave_out(name: str, is_named: bool) -> str:
    if not is_named:
        return "it needs a machine that does nothing else, and runs if it is named"
    return obstacle() if name == "test_ray_machines.py" else ""


@pytest.fixture(scope="module")
def libraries() -> Iterator[None]:
    """pyarrow and boto3."""
    with batch_libraries():
        yield
