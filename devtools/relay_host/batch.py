"""The environment in which the batch package runs with all of its extras: Ray, S3 and Parquet. ComfyUI's own never has these."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .locked_environment import command_in, locked_environment
from .paths import ROOT

LOCK = ROOT / "requirements" / "batch.txt"
SOURCES = ROOT / "batch"


def batch_commands() -> Path:
    """The folder with the environment's commands, among them `ray` and `moto_server`."""
    return locked_environment("batch", LOCK)


def batch_command() -> list[str]:
    """`relay-batch` from this checkout. It needs `batch_variables`."""
    return [str(command_in(batch_commands(), "python")), "-m", "relay_batch.cli"]


def batch_variables(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables of everything that runs there."""
    return {**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **(more or {})}


if __name__ == "__main__":
    print(batch_commands())
