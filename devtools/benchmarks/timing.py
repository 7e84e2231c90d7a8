"""Contenders take turns (A B A B) in one run, and only measurements from the same round are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Quantities = Mapping[str, float]
"""The measurements of one turn of a contender, {"whole": seconds, ...}."""
Samples = dict[str, list[float]]
"""{"contender.quantity": one value per round}."""

PAUSE_SECONDS = 0.3
"""Pause between turns: after computing, a process's threads keep spinning for a moment."""


def interleave(
    contenders: Mapping[str, Callable[[int], Quantities]],
    rounds: int,
    *,
    warm_up: int = 0,
    pause: Callable[[], object] = lambda: time.sleep(PAUSE_SECONDS),
) -> Samples:
    """Runs every contender once per round, in order. Each gets the number of the round, warm-up included, as a seed.

    The first `warm_up` rounds are discarded.
    """
    samples: Samples = {}
    for turn in range(warm_up + rounds):
        for name, contender in contenders.items():
            pause()
            quantities = contender(turn)
            if turn >= warm_up:
                for quantity, value in quantities.items():
                    samples.setdefault(f"{name}.{quantity}", []).append(value)
    return samples


def median(samples: Samples, name: str) -> float:
    return statistics.median(samples[name])


def ratio(samples: Samples, ours: str, other: str) -> float:
    """The median of the rounds' ratios: anything that slows the machine during a round slows both."""
    return paired_ratio(samples[ours], samples[other])


def paired_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    if len(ours) != len(other):
        raise ValueError(f"{len(ours)} and {len(other)} measurements don't make pairs.")
    return statistics.median(mine / theirs for mine, theirs in zip(ours, other))


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median: a difference below this means little."""
    return (max(values) - min(values)) / statistics.median(values)
