"""Checks of choices in a workflow, which the host does not make, and errors before a prompt runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...pipelines.base.errors import RelayError


def pick_folder(
    name: str,
    value: str,
    folders: dict[str, str],
    kind: str = "models",
    none: str = "Put a diffusers model in models/diffusers.",
) -> str:
    """The path of a choice. Only a listed name is accepted, because the host does not check the choices of a shared workflow.

    ``none``: what to do if there are no folders.
    """
    if value not in folders:
        raise RelayError(f"{name}: {value!r} is not among the {kind} of this ComfyUI. {list_or_advice(folders, none)}")
    return folders[value]


def list_or_advice(names: Iterable[str], none: str) -> str:
    """The end of an error about a missing name: the names to choose from, or ``none`` if there are none."""
    listed = ", ".join(names)
    return f"It has: {listed}. Choose one of these, or add the missing one." if listed else f"It has none. {none}"


def check_choice(name: str, value: str, options: Iterable[str]) -> str:
    """The value itself, if it is one of the options. The host does not check this for a shared workflow."""
    options = list(options)
    if value not in options:
        raise RelayError(
            f"{name}: {value!r} is not one of the choices in this version. Choose one of: {', '.join(options)}."
        )
    return value


def refusal(check: Callable[..., object], *values: Any) -> bool | str:
    """For ``validate_inputs``: True, or the error that ``check`` raises for ``values``, so that the prompt is refused before it runs.

    A value that comes over a link is still None then. The node checks it when it runs.
    """
    if any(value is None for value in values):
        return True
    try:
        check(*values)
    except RelayError as error:
        return str(error)
    return True
