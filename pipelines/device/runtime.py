"""What the nodes pass to every stage of a run: where modules run, and who is told about progress."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.monitor import Monitor
from .offload import OffloadPolicy


@dataclass(frozen=True)
class Runtime:
    policy: OffloadPolicy
    monitor: Monitor
