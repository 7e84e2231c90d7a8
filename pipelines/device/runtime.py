"""Where a run happens and who watches it: handed down from the nodes to every stage."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.monitor import Monitor
from .offload import OffloadPolicy


@dataclass(frozen=True)
class Runtime:
    policy: OffloadPolicy
    monitor: Monitor
