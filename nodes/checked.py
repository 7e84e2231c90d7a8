"""What reaches a node, checked by kind: a workflow file may have any value where the page would have a link."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..pipelines.base.errors import RelayError, in_a_line
from . import comfy_host, wire_types

LONGEST = 60
WIDGETS: dict[str, tuple[type, ...]] = {
    io.Int.io_type: (int,),
    io.Float.io_type: (int, float),
    io.String.io_type: (str,),
    io.Combo.io_type: (str,),
    io.Boolean.io_type: (bool,),
}


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node; from now on its ``execute`` is called only with values of the kinds that its inputs have, and its errors name an input.

    Raises:
        RelayError: from ``execute``; it names the input and the value. Whatever a library raises becomes one too, but for what
            the host itself handles: a cancel, and memory that has run out.
    """
    run = node.execute.__func__  # type: ignore[attr-defined]
    if hasattr(run, "__wrapped__"):
        return node
    schema = node.define_schema()
    declared, title = schema.inputs, schema.display_name
    kinds = {one.id: one.get_io_type() for one in declared}
    required = {one.id for one in declared if not getattr(one, "optional", False)}
    named = re.compile(rf"({'|'.join(map(re.escape, kinds))})\b")
    is_loader = all(kind in WIDGETS for kind in kinds.values())

    @functools.wraps(run)
    def execute(cls: type[io.ComfyNode], **inputs: Any) -> io.NodeOutput:
        for name, value in inputs.items():
            if value is None and name in required:
                raise RelayError(
                    f"{name}: nothing is given. Connect an output of the kind {kinds[name]}, or enter a value."
                )
            if value is not None and not _fits(kinds.get(name, ""), value):
                raise RelayError(
                    f"{name}: {_short(value)} is no {kinds[name]}. Connect an output of that kind, or enter a value."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise RelayError(f"{name}: {value} can't be used. Enter a finite number.")
        try:
            result: io.NodeOutput = run(cls, **inputs)
        except RelayError as error:
            if is_loader and not named.match(str(error)):  # it is about what the first input names
                error.args = (f"{next(iter(kinds))}: {error}",)
            raise
        except Exception as error:
            if comfy_host.handles(error):
                raise
            raise RelayError(
                f"{title} stopped{_with(inputs)}: {_in_a_line(error)}. {_advice(error, inputs)}"
            ) from error
        return result

    node.execute = classmethod(execute)  # type: ignore[arg-type,assignment,method-assign]
    return node


def _fits(kind: str, value: Any) -> bool:
    classes = WIDGETS.get(kind) or wire_types.carried(kind)
    return classes is None or isinstance(value, classes)


def _in_a_line(error: Exception) -> str:
    """What a library says, in so many words that a node can show them."""
    return f"{in_a_line(error)} ({type(error).__name__})"


def _with(inputs: Mapping[str, Any]) -> str:
    """The model that a node ran with, and where it samples the scheduler."""
    from ..pipelines.model.components import PipelineComponents

    model = inputs.get("model")
    if not isinstance(model, PipelineComponents):
        return ""
    scheduler = model.scheduler.class_name or type(model.modules.get("scheduler")).__name__
    return f" with {model.source}" + (f" and {scheduler}" if "steps" in inputs else "")


def _advice(error: Exception, inputs: Mapping[str, Any]) -> str:
    from ..pipelines.device.out_of_memory import ran_out

    if ran_out(error):
        return "There was too little memory. Close other programs, or use a smaller model, or one in float16."
    if "steps" in inputs:
        what = "Try other values, or another scheduler in Set Scheduler"
    else:
        what = "Try another file or other values"
    return f"{what}; the log has the details, for a report."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
