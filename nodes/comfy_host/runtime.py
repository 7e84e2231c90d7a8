"""The host's side of a run, put together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ...pipelines.device.runtime import Runtime
from .memory import HostOffload
from .monitor import HostMonitor
from .previews import previewer_for

if TYPE_CHECKING:
    from ...pipelines.model.components import PipelineComponents


def runtime_for(node: Any, model: PipelineComponents | None = None) -> Runtime:
    """Where a node's run happens and who watches it; with ``model``, its latents are previewed."""
    policy = HostOffload()
    make_previewer = (lambda: None) if model is None else partial(previewer_for, model, policy)
    return Runtime(policy, HostMonitor(getattr(node.hidden, "unique_id", None), make_previewer))
