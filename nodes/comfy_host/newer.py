"""What only newer hosts know about a node: words that find it in the search, and inputs that are folded away."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io


def found_by(words: str) -> dict[str, Any]:
    """An argument for ``io.Schema``: the words, separated by commas, that people search for. Since ComfyUI 0.11."""
    return _known(io.Schema, search_aliases=words.split(", "))


def advanced(input_class: Callable[..., Any]) -> dict[str, Any]:
    """An argument for an input of this class: it is shown among the advanced inputs. Since ComfyUI 0.10."""
    return _known(input_class, advanced=True)


def _known(schema_class: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that this host's class takes. Older hosts refuse the others."""
    taken = inspect.signature(schema_class).parameters
    return {name: value for name, value in arguments.items() if name in taken}
