"""The error of a graph that can't be written as a script."""

from __future__ import annotations

from ..pipelines.base.errors import RelayError


class NoScript(RelayError):
    """What can't be written, where it is in the graph, and what to do."""
