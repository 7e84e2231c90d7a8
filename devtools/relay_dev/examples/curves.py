"""The curves that the page draws for wires, to see which of them would run behind a node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

SAMPLES = 60
CLEARANCE = 8
"""How far from a node a wire must stay."""


@dataclass(frozen=True)
class Wire:
    """A wire, or its part from or to a reroute."""

    ends: tuple[Point, Point]
    from_reroute: bool = False
    to_reroute: bool = False

    def points(self) -> list[Point]:
        """Points of the spline: its control points are a quarter of its length to the right of its start and to the left of its end.

        At a reroute the page tilts them upwards or downwards where the wire turns, so here they are not to the side at all.
        """
        (x, y), (to_x, to_y) = self.ends
        reach = math.dist(*self.ends) / 4
        out = 0 if self.from_reroute else reach
        back = 0 if self.to_reroute else reach
        corners: Sequence[Point] = ((x, y), (x + out, y), (to_x - back, to_y), (to_x, to_y))
        return [_bezier(corners, number / SAMPLES) for number in range(SAMPLES + 1)]


def _bezier(corners: Sequence[Point], t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    return (
        sum(weight * corner[0] for weight, corner in zip(weights, corners)),
        sum(weight * corner[1] for weight, corner in zip(weights, corners)),
    )


def runs_behind(wire: Wire, boxes: Iterable[Box]) -> bool:
    points = wire.points()
    return any(
        left - CLEARANCE < x < right + CLEARANCE and top - CLEARANCE < y < bottom + CLEARANCE
        for left, top, right, bottom in boxes
        for x, y in points
    )
