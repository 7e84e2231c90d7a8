"""The pack's own socket types, each declared once."""

from comfy_api.latest import io

DiffusersModel = io.Custom("DIFFUSERS_MODEL")
"""A :class:`pipelines.components.PipelineComponents`."""
DiffusersPrompt = io.Custom("DIFFUSERS_PROMPT")
"""A :class:`pipelines.embeds.PromptEmbeds` or :class:`pipelines.embeds.ImageEmbeds`."""
DiffusersControlNet = io.Custom("DIFFUSERS_CONTROLNET")
"""A :class:`pipelines.controlnet_unit.ControlNet`."""
DiffusersControl = io.Custom("DIFFUSERS_CONTROL")
"""A tuple: ControlNet units in the order in which they were applied, or one :class:`pipelines.hints.KandinskyHint`."""
