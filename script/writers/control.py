"""Pictures that steer a run."""

from __future__ import annotations

from ..inputs import Inputs
from ..script import Script
from ..values import Hint, Net, Picture, Unit


def apply_controlnet(inputs: Inputs, script: Script) -> tuple[tuple[Unit, ...]]:
    unit = Unit(
        inputs.value("controlnet", Net),
        inputs.value("image", Picture),
        inputs.number("conditioning_scale", 1.0),
        inputs.number("start", 0.0),
        inputs.number("end", 1.0),
        inputs.flag("guess_mode", False),
    )
    if inputs.text("mode", "none") != "none":
        raise script.refuse("a ControlNet with modes (Union) can't be written as a script yet.")
    earlier = inputs.optional("control", tuple) or ()
    if not all(isinstance(one, Unit) and one.guess_mode == unit.guess_mode for one in earlier):
        raise script.refuse("control: all ControlNets of a run have the same guess_mode.")
    script.line(f"# {unit.picture.name} steers the runs below")
    return ((*earlier, unit),)


def kandinsky_hint(inputs: Inputs, script: Script) -> tuple[tuple[Hint]]:
    hint = Hint(inputs.value("image", Picture))
    script.line(f"# {hint.picture.name} is the depth map of the runs below")
    return ((hint,),)
