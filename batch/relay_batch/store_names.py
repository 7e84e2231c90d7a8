"""Names of files inside of a store."""

from __future__ import annotations

from pathlib import PurePosixPath

from .errors import BadOutput


def checked_name(name: str, inside: str) -> str:
    """The name. Raises BadOutput if it would leave what it is in."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        raise BadOutput(f"{name!r} is not a name inside of {inside}.")
    return name
