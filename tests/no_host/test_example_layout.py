"""The layout of the example workflows: columns, order, heights, gaps, and wires that are led around nodes."""

from __future__ import annotations

import itertools

import pytest

from relay_dev.examples.curves import Wire, runs_behind
from relay_dev.examples.layout import BETWEEN_GROUPS, WITHIN_GROUP, Connection, Shape, lay_out, layers_of


def shape(*inputs: str, width: float = 200, room: float = 100) -> Shape:
    return Shape(width, room, room, {name: 14 + 20 * at for at, name in enumerate(inputs)}, [14])


def test_a_node_is_to_the_right_of_what_it_needs_in_its_group() -> None:
    wires = [Connection("a", 0, "b", "x"), Connection("b", 0, "d", "x"), Connection("a", 0, "d", "y")]
    assert layers_of([["a", "b", "c"], ["d"]], wires) == [(0, ["a", "c"]), (0, ["b"]), (1, ["d"])]


def test_wires_that_lead_to_the_left_are_refused() -> None:
    shapes = {"a": shape("x"), "b": shape("x")}
    with pytest.raises(ValueError, match="to the left"):
        lay_out(shapes, [["a"], ["b"]], [Connection("b", 0, "a", "x")], 0)


def test_a_chain_is_a_straight_line() -> None:
    shapes = {"a": shape(), "b": shape("x"), "c": shape("x")}
    laid = lay_out(shapes, [["a", "b"], ["c"]], [Connection("a", 0, "b", "x"), Connection("b", 0, "c", "x")], 50)
    lefts = [laid.spots[name][0] for name in "abc"]
    assert [right - left - 200 for left, right in itertools.pairwise(lefts)] == [WITHIN_GROUP, BETWEEN_GROUPS]
    assert len({laid.spots[name][1] for name in "abc"}) == 1
    assert laid.reroutes == {}
    assert laid.frames[0][0] == 50 and laid.frames[0][1] == 0


def test_nodes_are_ordered_so_that_wires_do_not_cross() -> None:
    shapes = {"a": shape(), "b": shape(), "c": shape("x"), "d": shape("x"), "e": shape("x", "y")}
    wires = [
        Connection("a", 0, "d", "x"),
        Connection("b", 0, "c", "x"),
        Connection("c", 0, "e", "y"),
        Connection("d", 0, "e", "x"),
    ]
    spots = lay_out(shapes, [["a", "b"], ["c", "d"], ["e"]], wires, 0).spots
    assert (spots["a"][1] < spots["b"][1]) == (spots["d"][1] < spots["c"][1])
    assert spots["d"][1] < spots["c"][1]


def test_a_wire_that_would_run_behind_a_node_is_led_around_it() -> None:
    shapes = {"a": shape(), "b": shape("x", room=600), "c": shape("x", "y")}
    wires = [Connection("a", 0, "b", "x"), Connection("b", 0, "c", "x"), Connection("a", 0, "c", "y")]
    laid = lay_out(shapes, [["a"], ["b"], ["c"]], wires, 0)
    (x, y), (left, top) = laid.spots["a"], laid.spots["b"]
    box = (left, top - 30, left + 200, top + 600)
    end = (laid.spots["c"][0], laid.spots["c"][1] + 34)
    points = [(x + 200, y + 14), *laid.reroutes.get(wires[2], []), end]
    assert not any(runs_behind(Wire((one, other)), [box]) for one, other in itertools.pairwise(points))


def test_what_a_node_can_show_is_kept_free() -> None:
    shapes = {"a": shape(), "b": Shape(200, 100, 500, {"x": 14}, [14]), "c": shape("x")}
    spots = lay_out(shapes, [["a"], ["b", "c"]], [Connection("a", 0, "b", "x"), Connection("a", 0, "c", "x")], 0).spots
    upper, lower = sorted([spots["b"][1], spots["c"][1]])
    assert lower - upper >= (500 if spots["b"][1] == upper else 100) + 30


def test_columns_are_farther_apart_where_a_wire_falls_far() -> None:
    shapes = {"a": shape(), **{f"b{number}": shape("x", room=1200) for number in range(4)}}
    wires = [Connection("a", 0, f"b{number}", "x") for number in range(4)]
    laid = lay_out(shapes, [["a"], [f"b{number}" for number in range(4)]], wires, 0)
    assert laid.spots["b0"][0] - laid.spots["a"][0] - 200 > BETWEEN_GROUPS
