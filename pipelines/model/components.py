"""What a loader hands to every other node: a light, immutable view of one model's shared modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.memory_size import module_bytes, tensor_bytes
from .family import ModelFamily
from .options import ModelOptions

if TYPE_CHECKING:
    import torch

    from .adapters import Lora, TextualInversion


@dataclass(frozen=True)
class SchedulerChoice:
    """What the user asked of the scheduler; the model's own config fills in the rest. ``None`` is "as the model has it"."""

    class_name: str | None = None
    sigmas: str | None = None
    """``"karras"``, ``"exponential"`` or ``"beta"``."""
    timestep_spacing: str | None = None


@dataclass(frozen=True, eq=False)
class PipelineComponents:
    """One model: its family, its modules, and what decides its results.

    The modules are shared with every other view of the same files. They are borrowed for a run and go back as they
    were found; a node that changes the model makes a new view with :meth:`with_changes`.
    """

    family: ModelFamily
    source: str
    """The repo id or folder name, for messages."""
    modules: Mapping[str, Any]
    """Component name -> module, tokenizer or processor. ``scheduler`` is read for its class and config only."""
    dtype: torch.dtype
    config: Mapping[str, Any] = field(default_factory=dict)
    """The family's config flags: as model_index.json has them, and diffusers' defaults for those that it lacks."""
    scheduler: SchedulerChoice = SchedulerChoice()
    loras: tuple[Lora, ...] = ()
    """In the order in which they were added; active for the length of a stage only."""
    embeddings: tuple[TextualInversion, ...] = ()
    """Textual inversions; the tokenizers of this view know their tokens."""
    options: ModelOptions = field(default_factory=ModelOptions)
    """How the modules are run."""

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
        """The family's text encoder components that this model has: it may lack those that the family calls optional."""
        family = self.family
        return tuple(
            name for name in family.text_encoders if name not in family.optional or self.modules.get(name) is not None
        )

    def get_ram_usage(self) -> int:
        """Bytes that this value keeps in memory; the host asks when memory runs short, and drops what keeps most.

        What other views share counts in each of them, as in the host's own models: it goes when all of them go.
        """
        tensors = [tensor for lora in self.loras for tensor in lora.weights.tensors]
        tensors += [vectors for embedding in self.embeddings for vectors in embedding.vectors.values()]
        return module_bytes(self.modules.values()) + tensor_bytes(tensors)

    def with_changes(self, *, modules: Mapping[str, Any] | None = None, **fields: Any) -> PipelineComponents:
        """A new view; ``modules`` replaces only the components that it names."""
        return replace(self, modules={**self.modules, **(modules or {})}, **fields)
