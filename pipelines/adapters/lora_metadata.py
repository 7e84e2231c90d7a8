"""Reads the metadata of a LoRA file: PEFT's settings for each component, as diffusers writes them.

Rank and alpha are read for layers with literal names. PEFT treats names as regular expressions, which are not evaluated
here. A setting that turns the tensors into more than a LoRA is an error; one that only concerns training is dropped.
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
"""Settings for training, for methods that another setting turns on, or that the tensors tell."""
TRAINED_TOO = {
    "bias": "biases",
    "lora_bias": "biases",
    "modules_to_save": "other layers",
    "trainable_token_indices": "tokens",
}
"""Settings that mean that more than the LoRA was trained -> what was trained."""
PLAIN_STARTS = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that don't change the model's own weights."""
OTHER_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values that change the model's weights: the saved LoRA must be added to the changed weights."""
PEFT_DEFAULT = 8
"""PEFT's default rank and alpha."""
NAME = re.compile(r"\^?\w+(\.\w+)*")
ANOTHER = "Use another copy of this LoRA."


class AdapterSettings:
    """The settings of one component."""

    def __init__(self, entries: Mapping[str, Any], where: str) -> None:
        self._where = where
        self._refuse_other_methods(entries)
        self._declares_rank = "r" in entries or bool(entries.get("rank_pattern"))
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
        """The factor for the product of the layer's two matrices.

        Raises:
            RelayError: the metadata has another rank for the layer.
        """
        declared = _for_layer(self._ranks, layer, self._rank)
        if self._declares_rank and declared != rank:
            raise RelayError(
                f"{self._where} contradicts itself: by its metadata, {shown(layer)} has rank {declared:g}, but its tensors have rank {rank}. {ANOTHER}"
            )
        return _for_layer(self._alphas, layer, self._alpha) / (math.sqrt(rank) if self._rooted else rank)

    def check_dora(self, layer: str, has_lengths: bool) -> None:
        """
        Raises:
            RelayError: by the metadata the layer is a DoRA but has no magnitude vector, or the other way round.
        """
        if self._dora is not None and bool(self._dora) != has_lengths:
            raise RelayError(
                f"{self._where} contradicts itself: by its metadata it is {'a' if self._dora else 'not a'} DoRA, but {shown(layer)} has "
                f"{'a' if has_lengths else 'no'} DoRA magnitude vector. {ANOTHER}"
            )

    def _refuse_other_methods(self, entries: Mapping[str, Any]) -> None:
        defaults = _defaults()
        start = str(entries.get("init_lora_weights", True)).lower()
        if start.startswith(OTHER_STARTS):
            raise RelayError(
                f"{self._where} was trained on changed model weights (init_lora_weights: {shown(start)}), so it can't be added to the model's own "
                "weights. Use one that was converted to a plain LoRA (in PEFT: path_initial_model_for_weight_conversion)."
            )
        for key, value in entries.items():
            known = key in READ or key in WITHOUT_EFFECT or key in TRAINED_TOO
            if not known and value and value != defaults.get(key):
                raise self._other_method(key, value, entries)
        if start not in PLAIN_STARTS:
            raise self._other_method("init_lora_weights", start, entries)

    def _other_method(self, key: str, value: object, entries: Mapping[str, Any]) -> RelayError:
        """The error for a setting that the installed PEFT may not know, or for a method that is not a LoRA."""
        version = entries.get("peft_version")
        saved = f"; it was saved by peft {shown(version)}" if version else ""
        return RelayError(
            f"{self._where} was made with {shown(key)}: {shown(value)}, which Load LoRA (Diffusers) can't load{saved}. Use a plain LoRA."
        )

    def _number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise RelayError(
                f"{self._where}: {key} in its metadata is {shown(value)}, which is not a usable number. {ANOTHER}"
            )
        return float(value)

    def _by_name(self, entries: Mapping[str, Any], key: str) -> dict[str, tuple[int, float]]:
        """Name of a layer, or ending of layers' names -> (its place, the number). A name that begins with ``^`` is a whole name."""
        table = entries.get(key) or {}
        if not isinstance(table, dict):
            raise RelayError(f"{self._where}: {key} in its metadata is {shown(table)}, which is not a table. {ANOTHER}")
        found: dict[str, tuple[int, float]] = {}
        for place, (name, number) in enumerate(table.items()):
            literal = name.removesuffix("$").replace("\\.", ".")
            if not NAME.fullmatch(literal):
                raise RelayError(
                    f"{self._where}: {key} in its metadata has the expression {shown(name)}, but only names of layers can be read. "
                    "Save the LoRA again with the names of its layers."
                )
            found.setdefault(literal, (place, self._number(number, key)))
        return found


class Metadata:
    """The settings of all components."""

    def __init__(self, text: str | None, where: str) -> None:
        self._where = where
        self._settings: dict[str, AdapterSettings | None] = {}
        try:
            self._entries = {} if text is None else json.loads(text)
        except (ValueError, RecursionError):
            self._entries = None
        if not isinstance(self._entries, dict):
            raise RelayError(
                f"{where}: its {METADATA} can't be read. Save the LoRA again, with valid metadata or without any."
            )

    def __bool__(self) -> bool:
        return bool(self._entries)

    def of(self, component: str) -> AdapterSettings | None:
        """The settings of the component; None if it has none.

        Raises:
            RelayError: the settings are not those of a LoRA, or can't be read.
        """
        if component not in self._settings:
            start = f"{component}."
            own = {key.removeprefix(start): value for key, value in self._entries.items() if key.startswith(start)}
            # ``unet.save_lora_adapter`` writes the settings of its one component without its name
            own = own or {key: value for key, value in self._entries.items() if "." not in key}
            self._settings[component] = AdapterSettings(own, self._where) if own else None
        return self._settings[component]

    @property
    def trained_too(self) -> tuple[str, ...]:
        """What else was trained, for the components that :meth:`of` was called with."""
        present = [settings for settings in self._settings.values() if settings is not None]
        return tuple(dict.fromkeys(what for settings in present for what in settings.trained_too))


def _for_layer(names: Mapping[str, tuple[int, float]], layer: str, otherwise: float) -> float:
    """The number of the first name that matches the layer or its ending, as in PEFT. transformers 5 leaves out ``text_model.``."""
    if not names:
        return otherwise
    whole = f"text_model.{layer.removeprefix('text_model.')}"
    parts = whole.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    found = [names[name] for name in (*ends, f"^{ends[0]}", f"^{ends[1]}") if name in names]
    return min(found)[1] if found else otherwise


def _defaults() -> dict[str, Any]:
    """The defaults of the installed PEFT's settings, which are in every file unless the trainer changed them."""
    import peft

    return {field.name: field.default for field in dataclasses.fields(peft.LoraConfig)}
