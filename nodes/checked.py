"""Wraps every node: checks the type of each value before it runs, because a workflow file can contain any value where the page would
put a link, and puts what the node said into its output."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..pipelines.base.errors import RelayError, in_a_line
from . import comfy_host, wire_types

MAX_VALUE_LENGTH = 60
NOTES = "relay_notes"
"""The key in a node's UI output; web/js/notes.js reads it."""
WIDGETS: dict[str, tuple[type, ...]] = {
    io.Int.io_type: (int,),
    io.Float.io_type: (int, float),
    io.String.io_type: (str,),
    io.Combo.io_type: (str,),
    io.Boolean.io_type: (bool,),
}


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Wraps the node's ``execute``: it only runs with values of its inputs' types, its errors name an input, and the messages
    of the run are in the UI output (the page and the history have them). Returns the node.

    Raises:
        RelayError: from ``execute``; names the input and the value. Any exception of a library becomes one too, except those
            that the host handles itself: a cancel and out of memory.
    """
    run = node.execute.__func__  # type: ignore[attr-defined]
    if hasattr(run, "__wrapped__"):
        return node
    schema = node.define_schema()
    declared, title = schema.inputs, schema.display_name
    kinds = {entry.id: entry.get_io_type() for entry in declared}
    required = {entry.id for entry in declared if not getattr(entry, "optional", False)}
    names_an_input = re.compile(rf"({'|'.join(map(re.escape, kinds))})\b")
    is_loader = all(kind in WIDGETS for kind in kinds.values())

    @functools.wraps(run)
    def execute(cls: type[io.ComfyNode], **inputs: Any) -> io.NodeOutput:
        for name, value in inputs.items():
            if value is None and name in required:
                raise RelayError(
                    f"{name}: there is no value. Connect an output of type {kinds[name]}, or enter a value."
                )
            if value is not None and not _fits(kinds.get(name, ""), value):
                raise RelayError(
                    f"{name}: {_short(value)} is not of type {kinds[name]}. Connect an output of that type, or enter a value."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise RelayError(f"{name}: {value} can't be used. Enter a finite number.")
        try:
            with comfy_host.notes_kept() as notes:
                result: io.NodeOutput = run(cls, **inputs)
            for value in result.args:
                if isinstance(value, wire_types.models()):
                    comfy_host.mark_as_model(value)
        except RelayError as error:
            if is_loader and not names_an_input.match(str(error)):
                # The error is about the file or model that the first input names.
                error.args = (f"{next(iter(kinds))}: {error}",)
            raise
        except Exception as error:
            if comfy_host.handles(error):
                raise
            raise RelayError(
                f"{title} stopped{_model_and_scheduler(inputs)}: {_in_a_line(error)}. {_advice(error, inputs)}"
            ) from error
        if notes:
            result.ui = {NOTES: notes}
        return result

    node.execute = classmethod(execute)  # type: ignore[arg-type,assignment,method-assign]
    return node


def _fits(kind: str, value: Any) -> bool:
    classes = WIDGETS.get(kind) or wire_types.carried(kind)
    return classes is None or isinstance(value, classes)


def _in_a_line(error: Exception) -> str:
    """A library's message and the exception's type, short enough to show in a node."""
    return f"{in_a_line(error)} ({type(error).__name__})"


def _model_and_scheduler(inputs: Mapping[str, Any]) -> str:
    """The model that a node ran with, and its scheduler if the node samples."""
    from ..pipelines.model.components import PipelineComponents

    model = inputs.get("model")
    if not isinstance(model, PipelineComponents):
        return ""
    scheduler = model.scheduler.class_name or type(model.modules.get("scheduler")).__name__
    return f" with {model.source}" + (f" and {scheduler}" if "steps" in inputs else "")


def _advice(error: Exception, inputs: Mapping[str, Any]) -> str:
    from ..pipelines.device.out_of_memory import ran_out

    if ran_out(error):
        return "There was not enough memory. Close other programs, use a smaller model, or load it in float16."
    if "steps" in inputs:
        what = "Try other values, or another scheduler in Set Scheduler"
    else:
        what = "Try another file or other values"
    return f"{what}. The log has the details for a bug report."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
