"""What a LoRA file's own metadata say: PEFT's settings of each component, as diffusers writes them.

Rank and alpha are read, for layers by their literal names: PEFT takes names for expressions, which are not evaluated here.
A setting that makes more of the tensors than a LoRA is refused; one that says how they were trained is dropped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..base.errors import RelayError, shown

METADATA = "lora_adapter_metadata"
"""Where diffusers writes an adapter's settings."""
READ = frozenset(("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights"))
WITHOUT_EFFECT = frozenset(
    (
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "lora_dropout", "fan_in_fan_out", "megatron_config", "megatron_core", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size"),
    )
)
"""Of training, of methods that another setting turns on, or told by the tensors themselves."""
TRAINED_TOO = {
    "bias": "biases",
    "lora_bias": "biases",
    "modules_to_save": "other layers",
    "trainable_token_indices": "tokens",
}
"""Settings by which more than the LoRA was trained -> what."""
PLAIN_STARTS = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
"""``init_lora_weights`` that leave the model's own weights as they are."""
OTHER_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Those that change them: what is saved is to be added to the changed ones."""
PEFT_DEFAULT = 8
"""PEFT's rank and alpha."""
NAME = re.compile(r"\^?\w+(\.\w+)*")
ANOTHER = "Use another copy of it."


class AdapterSettings:
    """Of one component's part of a file."""

    def __init__(self, entries: Mapping[str, Any], where: str) -> None:
        self._where = where
        self._refuse_other_methods(entries)
        self._says_rank = "r" in entries or bool(entries.get("rank_pattern"))
        self._rank = self._number(entries.get("r", PEFT_DEFAULT), "r")
        self._alpha = self._number(entries.get("lora_alpha", PEFT_DEFAULT), "lora_alpha")
        self._ranks = self._by_name(entries, "rank_pattern")
        self._alphas = self._by_name(entries, "alpha_pattern")
        self._rooted = bool(entries.get("use_rslora"))
        self._dora = entries.get("use_dora")
        self.trained_too = tuple(
            dict.fromkeys(what for key, what in TRAINED_TOO.items() if (entries.get(key) or "none") != "none")
        )

    def scale(self, layer: str, rank: int) -> float:
        """What the product of the layer's matrices is multiplied by.

        Raises:
            RelayError: the layer is said to have another rank.
        """
        said = _of_layer(self._ranks, layer, self._rank)
        if self._says_rank and said != rank:
            raise RelayError(
                f"{self._where} contradicts itself: its metadata says rank {said:g} for {shown(layer)}, and its tensors have rank {rank}. {ANOTHER}"
            )
        return _of_layer(self._alphas, layer, self._alpha) / (math.sqrt(rank) if self._rooted else rank)

    def check_dora(self, layer: str, has_lengths: bool) -> None:
        """
        Raises:
            RelayError: the layer is said to be a DoRA and has no lengths, or the other way round.
        """
        if self._dora is not None and bool(self._dora) != has_lengths:
            says = "use_dora" if self._dora else "no DoRA"
            raise RelayError(
                f"{self._where} contradicts itself: its metadata says {says}, and {shown(layer)} has {'a' if has_lengths else 'no'} DoRA "
                f"magnitude vector. {ANOTHER}"
            )

    def _refuse_other_methods(self, entries: Mapping[str, Any]) -> None:
        usual = _defaults()
        start = str(entries.get("init_lora_weights", True)).lower()
        if start.startswith(OTHER_STARTS):
            raise RelayError(
                f"{self._where} was trained from other weights than the model's own (init_lora_weights: {shown(start)}), and can't be added to "
                "those. Use one that was converted to a plain LoRA (in PEFT: path_initial_model_for_weight_conversion)."
            )
        for key, value in entries.items():
            known = key in READ or key in WITHOUT_EFFECT or key in TRAINED_TOO
            if not known and value and value != usual.get(key):
                raise self._other_method(key, value, entries)
        if start not in PLAIN_STARTS:
            raise self._other_method("init_lora_weights", start, entries)

    def _other_method(self, key: str, value: object, entries: Mapping[str, Any]) -> RelayError:
        """A setting that this PEFT may not know, or a method that is no LoRA."""
        version = entries.get("peft_version")
        saved = f"; it was saved by peft {shown(version)}" if version else ""
        return RelayError(
            f"{self._where} was made with {shown(key)}: {shown(value)}, which Load LoRA (Diffusers) can't load{saved}. Use a plain LoRA."
        )

    def _number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise RelayError(f"{self._where} has no usable number for {key} in its metadata: {shown(value)}. {ANOTHER}")
        return float(value)

    def _by_name(self, entries: Mapping[str, Any], key: str) -> dict[str, tuple[int, float]]:
        """A layer's name, or the end of some layers' -> (its place, the number); with ``^`` it is the whole name."""
        table = entries.get(key) or {}
        if not isinstance(table, dict):
            raise RelayError(f"{self._where} has no table for {key} in its metadata: {shown(table)}. {ANOTHER}")
        found: dict[str, tuple[int, float]] = {}
        for place, (name, number) in enumerate(table.items()):
            literal = name.removesuffix("$").replace("\\.", ".")
            if not NAME.fullmatch(literal):
                raise RelayError(
                    f"{self._where} names layers by an expression in {key} of its metadata, {shown(name)}, and only names are read. "
                    "Save the LoRA again with the names of its layers."
                )
            found.setdefault(literal, (place, self._number(number, key)))
        return found


class Metadata:
    """Every component's settings."""

    def __init__(self, text: str | None, where: str) -> None:
        self._where = where
        self._settings: dict[str, AdapterSettings | None] = {}
        try:
            self._entries = {} if text is None else json.loads(text)
        except (ValueError, RecursionError):
            self._entries = None
        if not isinstance(self._entries, dict):
            raise RelayError(f"{where}: its {METADATA} can't be read. Save the LoRA again, or without metadata.")

    def __bool__(self) -> bool:
        return bool(self._entries)

    def of(self, component: str) -> AdapterSettings | None:
        """None: nothing is said of the component.

        Raises:
            RelayError: what is said of it is not a LoRA's, or can't be read.
        """
        if component not in self._settings:
            start = f"{component}."
            own = {key.removeprefix(start): value for key, value in self._entries.items() if key.startswith(start)}
            # ``unet.save_lora_adapter`` writes its one component's with no name before them
            own = own or {key: value for key, value in self._entries.items() if "." not in key}
            self._settings[component] = AdapterSettings(own, self._where) if own else None
        return self._settings[component]

    @property
    def trained_too(self) -> tuple[str, ...]:
        """What else was trained, of the components that were asked for."""
        return tuple(
            dict.fromkeys(what for one in self._settings.values() if one is not None for what in one.trained_too)
        )


def _of_layer(names: Mapping[str, tuple[int, float]], layer: str, otherwise: float) -> float:
    """The number of the first name that is the layer's or its end, as in PEFT; transformers 5 has left ``text_model.`` out."""
    if not names:
        return otherwise
    whole = f"text_model.{layer.removeprefix('text_model.')}"
    parts = whole.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    found = [names[name] for name in (*ends, f"^{ends[0]}", f"^{ends[1]}") if name in names]
    return min(found)[1] if found else otherwise


def _defaults() -> dict[str, Any]:
    """Of the settings of the PEFT that is installed: in every file where nobody has set them."""
    import peft

    return {field.name: field.default for field in dataclasses.fields(peft.LoraConfig)}
