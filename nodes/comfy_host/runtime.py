"""Builds the runtime of a node's run from the host's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...pipelines.device.runtime import Runtime
from .memory import HostOffload
from .monitor import HostMonitor
from .previews import previewer_for

if TYPE_CHECKING:
    from ...pipelines.model.components import PipelineComponents


def runtime_for(node: Any, model: PipelineComponents | None = None) -> Runtime:
    """The memory policy and the monitor for a node's run. If ``model`` is given, its latents are previewed."""

    def make_previewer() -> Any:
        return None if model is None else previewer_for(model, policy)

    monitor = HostMonitor(getattr(node.hidden, "unique_id", None), make_previewer)
    policy = HostOffload(monitor.say)
    return Runtime(policy, monitor)
