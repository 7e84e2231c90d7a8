"""A row of a benchmark's table, and its target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .glibc import FAULTS
from .timing import Samples, median, ratio, spread


@dataclass(frozen=True)
class Aim:
    """The value of `of` ("ratio" or "ours") must be at most this."""

    of: Literal["ratio", "ours"]
    most: float


@dataclass(frozen=True)
class Row:
    what: str
    ours: float | None = None
    """Median, in `unit`."""
    other: float | None = None
    """What it is compared with: median, in `unit`."""
    unit: str = "s"
    """s, MB, or "" for a count."""
    ratio: float | None = None
    """ours / other; with pairs, the median of the pairs' ratios."""
    aim: Aim | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """None if there is no target, or nothing was measured."""
        value = None if self.aim is None else (self.ratio if self.aim.of == "ratio" else self.ours)
        return None if self.aim is None or value is None else value <= self.aim.most

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Row:
        aim = content["aim"]
        return Row(**{**content, "aim": None if aim is None else Aim(**aim)})


def compared(what: str, samples: Samples, ours: str, other: str, most: float | None = None, note: str = "") -> Row:
    """A row that compares two quantities of an interleaved run; most: the target for the ratio."""
    faults = [samples.get(name + FAULTS) for name in (ours, other)]
    counts = ""
    if all(faults):
        counts = "minor page faults per step " + " and ".join(
            f"{statistics.median(found or ()):,.0f}" for found in faults
        )
    spreads = f"spread {spread(samples[ours]):.0%} and {spread(samples[other]):.0%} in {len(samples[ours])} rounds"
    return Row(
        what,
        median(samples, ours),
        median(samples, other),
        ratio=ratio(samples, ours, other),
        aim=None if most is None else Aim("ratio", most),
        note="; ".join(part for part in (note, counts, spreads) if part),
    )


def counted(what: str, ours: float, other: float | None = None, most: float | None = None, note: str = "") -> Row:
    """A row of counts; most: the target for ours."""
    return Row(what, ours, other, unit="", aim=None if most is None else Aim("ours", most), note=note)


def not_there(what: str, why: str) -> Row:
    return Row(what, note=f"not there: {why}")
