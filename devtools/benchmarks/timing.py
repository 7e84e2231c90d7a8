"""A B A B in one run: contenders take turns, and what is compared is what was measured in the same round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Quantities = Mapping[str, float]
"""What one turn of a contender gives, {"whole": seconds, ...}."""
Samples = dict[str, list[float]]
"""{"contender.quantity": one value a round}."""

PAUSE_SECONDS = 0.3
"""Between turns: the threads of a process that has just computed go on spinning for a moment."""


def interleave(
    contenders: Mapping[str, Callable[[int], Quantities]],
    rounds: int,
    *,
    warm_up: int = 0,
    pause: Callable[[], object] = lambda: time.sleep(PAUSE_SECONDS),
) -> Samples:
    """Runs every contender once a round, in their order. Each gets the number of the round, warm-up included, as a seed.

    The first `warm_up` rounds are run and forgotten.
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
    """The median of the ratios of each round: what slows the machine for a round slows both."""
    return paired_ratio(samples[ours], samples[other])


def paired_ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    if len(ours) != len(other):
        raise ValueError(f"{len(ours)} and {len(other)} measurements are no pairs.")
    return statistics.median(mine / theirs for mine, theirs in zip(ours, other))


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median: what a small difference has to be held against."""
    return (max(values) - min(values)) / statistics.median(values)
