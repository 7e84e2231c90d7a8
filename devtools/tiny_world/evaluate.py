"""Measures how often a model paints what a caption says, according to the judge, and saves sheets of pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .judge import Seen, agrees, look
from .scene import Scene, plain_caption, random_scene

Paint = Callable[[Sequence[str]], np.ndarray]
"""Captions -> [count, height, width, 3] in 0..1."""


def scenes_to_ask(count: int, seed: int = 77) -> list[Scene]:
    """Scenes with one thing each."""
    rng = random.Random(seed)
    return [random_scene(rng, two=0, empty=0) for _ in range(count)]


def score(paint: Paint, of: Sequence[Scene], sheet: Path | None = None) -> tuple[float, float]:
    """(share of scenes with the right colours, share with the right colours and shape)."""
    painted = paint([plain_caption(scene) for scene in of])
    seen = [look(picture) for picture in painted]
    if sheet is not None:
        save_sheet(painted, sheet)
    return _share(seen, of, colors_only=True), _share(seen, of, colors_only=False)


def _share(seen: Sequence[Seen], of: Sequence[Scene], *, colors_only: bool) -> float:
    return sum(agrees(one, scene, colors_only=colors_only) for one, scene in zip(seen, of)) / len(of)


def save_sheet(pictures: np.ndarray, file: Path, columns: int = 8) -> None:
    rows = [np.concatenate(list(pictures[start : start + columns]), 1) for start in range(0, len(pictures), columns)]
    if len(rows) > 1 and rows[-1].shape != rows[0].shape:
        rows[-1] = np.pad(rows[-1], ((0, 0), (0, rows[0].shape[1] - rows[-1].shape[1]), (0, 0)))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(file)
