"""Compares a graph's pixels with a script's float values."""

from __future__ import annotations

import numpy as np

from reference import scripts


def assert_same_pixels(graph_pixels: np.ndarray, script_pictures: np.ndarray) -> None:
    """Checks that they are equal. A value within 1e-5 of a rounding edge may fall on either side."""
    expected = scripts.write_like_host(script_pictures)
    assert graph_pixels.shape == expected.shape
    near_edge = np.abs(script_pictures * 255 - np.rint(script_pictures * 255)) < 255 * 1e-5
    differing = graph_pixels != expected
    assert not (differing & ~near_edge).any(), f"{int(differing.sum())} of {differing.size} values differ"
    assert np.abs(graph_pixels.astype(int) - expected.astype(int)).max() <= 1
    assert expected.std() > 10, "a flat picture proves nothing"
