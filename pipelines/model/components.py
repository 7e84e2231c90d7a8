"""The loaded model that nodes pass on: a light, immutable value with shared modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.memory_size import SizedValue, module_tensors
from .family import ModelFamily
from .guidance import GuidanceOptions
from .options import ModelOptions

if TYPE_CHECKING:
    import torch

    from .adapters import Lora, TextualInversion


@dataclass(frozen=True)
class SchedulerChoice:
    """The user's settings for the scheduler. ``None`` keeps the model's own; its config supplies everything else."""

    class_name: str | None = None
    sigmas: str | None = None
    """``"karras"``, ``"exponential"`` or ``"beta"``."""
    timestep_spacing: str | None = None
    prediction_type: str | None = None
    """``"epsilon"`` or ``"v_prediction"``."""
    rescale_betas_zero_snr: bool = False
    """Whether the betas are rescaled to zero terminal SNR, if the model's config doesn't already ask for it."""
    algorithm_type: str | None = None
    """``"dpmsolver++"`` or ``"sde-dpmsolver++"``, for DPM-Solver."""
    euler_at_final: bool = False
    """Whether DPM-Solver ends with an Euler step, if the model's config doesn't already ask for it."""
    shift: float | None = None
    """For flow matching: the same at every size, also if the model's own depends on the size (dynamic shifting)."""


@dataclass(frozen=True, eq=False)
class PipelineComponents(SizedValue):
    """One model: its family, its modules, and the settings that affect its results.

    The modules are shared with all other values from the same files. A run may change them, but restores them. A node that
    changes the model creates a new value with :meth:`with_changes`.
    """

    family: ModelFamily
    source: str
    """The repo id or folder name, for messages."""
    modules: Mapping[str, Any]
    """Component name -> module, tokenizer or processor. Only the class and config of ``scheduler`` are used."""
    dtype: torch.dtype
    config: Mapping[str, Any] = field(default_factory=dict)
    """The family's config flags from model_index.json, with diffusers' defaults for missing ones."""
    scheduler: SchedulerChoice = SchedulerChoice()
    loras: tuple[Lora, ...] = ()
    """In the order in which they were added; active only while a stage runs."""
    embeddings: tuple[TextualInversion, ...] = ()
    """Textual inversions; the tokenizers in :attr:`modules` know their tokens."""
    options: ModelOptions = field(default_factory=ModelOptions)
    """Speed and memory options for running the modules."""
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", MappingProxyType(dict(self.modules)))
        object.__setattr__(self, "config", MappingProxyType({**self.family.config_flags, **self.config}))

    def __getitem__(self, name: str) -> Any:
        """The component ``name``, e.g. ``components["unet"]``."""
        if name not in self.modules:
            raise RelayError(
                f"{self.source} ({self.family.title}) has no {name}. It has: {', '.join(sorted(self.modules))}."
            )
        return self.modules[name]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoder components that this model has; it may lack optional ones of the family, or all."""
        return tuple(name for name in self.family.text_encoders if self.modules.get(name) is not None)

    @property
    def lacks_text_encoders(self) -> bool:
        """Whether the model can't encode a prompt, because its file contains no text encoder."""
        return bool(self.family.text_encoders) and not self.text_encoders

    def tensors(self) -> list[torch.Tensor | None]:
        kept = [tensor for lora in self.loras for tensor in lora.weights.tensors]
        kept += [vectors for embedding in self.embeddings for vectors in embedding.vectors.values()]
        return [*module_tensors(self.modules.values()), *kept]

    def with_changes(self, *, modules: Mapping[str, Any] | None = None, **fields: Any) -> PipelineComponents:
        """A copy with changed fields. ``modules`` only replaces the components that it contains."""
        return replace(self, modules={**self.modules, **(modules or {})}, **fields)
