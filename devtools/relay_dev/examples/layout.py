"""Places the nodes of a workflow: columns from left to right, as few crossing wires as possible, and no wire behind a node.

A wire that spans several columns gets a lane between the nodes of each column that it passes. Where the wire would otherwise run
behind a node, reroutes keep it in its lanes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog

from .curves import CLEARANCE, Point, Wire, runs_behind

TITLE = 30
"""The page draws a node's title above its position."""
ABOVE = 54
"""What the page draws above a node's position: its title, and the badge with the name of its pack."""
NODE_GAP = 34
LANE = 26
"""The space for a wire between two nodes."""
LANE_END = 24
"""How far a lane reaches beyond its column."""
WITHIN_GROUP = 90
BETWEEN_GROUPS = 130
"""The widths of the gaps between two columns of the same group, and of different groups."""
OVERHANG = 10
"""How far a wire may swing out behind the edges of the columns that it connects: less than the least distance of a node's content."""
GROUP_MARGIN = 20
GROUP_TITLE = 34
RESTARTS = 12
OUT_OF_ORDER = 0.9
"""How much two nodes that aren't in the described order count, in crossings."""
STRAIGHT = 3.0
"""How much more a bend in a lane counts than one at a node."""
UPWARDS = 0.01
"""How much a node that hangs low counts."""


@dataclass(frozen=True)
class Shape:
    """A node's measures: the size to save, the height with everything that it can show, and its sockets below its position."""

    width: float
    height: float
    room: float
    inputs: Mapping[str, float]
    outputs: Sequence[float]


@dataclass(frozen=True)
class Connection:
    """A wire from the output with this number to the input with this name."""

    source: str
    slot: int
    target: str
    input: str


@dataclass(frozen=True)
class Lane:
    """The place in a column where the wires of an output pass."""

    source: str
    slot: int
    layer: int


@dataclass
class Laid:
    """The result: positions; the frames of the groups (x, y, width, height); the points that the wires of an output pass, from left to right."""

    spots: dict[str, Point] = field(default_factory=dict)
    frames: list[tuple[float, float, float, float]] = field(default_factory=list)
    reroutes: dict[Connection, list[Point]] = field(default_factory=dict)


Item = Hashable
"""A node's name or a Lane."""
Edge = tuple[Item, float, Item, float]
"""(item, where on it the wire begins, item in the next column, where on it the wire ends)"""


def layers_of(groups: Sequence[Sequence[str]], connections: Sequence[Connection]) -> list[tuple[int, list[str]]]:
    """(group's number, names) for each column: in a group, a node is to the right of the nodes of the group that it needs."""
    columns: list[tuple[int, list[str]]] = []
    for number, names in enumerate(groups):
        depth: dict[str, int] = {}

        def depth_of(name: str, names: Sequence[str] = names, depth: dict[str, int] = depth) -> int:
            if name not in depth:
                before = {wire.source for wire in connections if wire.target == name and wire.source in names}
                depth[name] = max((depth_of(other) + 1 for other in before), default=0)
            return depth[name]

        for level in range(max(map(depth_of, names)) + 1):
            columns.append((number, [name for name in names if depth[name] == level]))
    return columns


def lay_out(
    shapes: Mapping[str, Shape], groups: Sequence[Sequence[str]], connections: Sequence[Connection], left: float
) -> Laid:
    """Places the nodes of `groups`, whose frames begin at `left` and at a height of 0."""
    columns = layers_of(groups, connections)
    layer = {name: number for number, (_, names) in enumerate(columns) for name in names}
    backwards = [wire for wire in connections if layer[wire.source] >= layer[wire.target]]
    if backwards:
        raise ValueError(f"These wires lead to the left; put their nodes into other columns: {backwards}")
    edges, lanes = _edges(shapes, connections, layer)
    best = _best_order(shapes, [[*lanes[number], *names] for number, (_, names) in enumerate(columns)], edges)
    lefts = _lefts(shapes, columns, edges, best, left)
    rights = [x + max(shapes[name].width for name in names) for x, (_, names) in zip(lefts, columns)]
    laid = Laid()
    laid.spots = {name: (lefts[layer[name]], best[name]) for name in layer}
    for number, names in enumerate(groups):
        inside = [one for one, (group, _) in enumerate(columns) if group == number]
        x = lefts[inside[0]] - GROUP_MARGIN
        bottom = max(laid.spots[name][1] + shapes[name].room for name in names) + GROUP_MARGIN
        laid.frames.append((x, 0, rights[inside[-1]] + GROUP_MARGIN - x, bottom))
    boxes = {name: (x, y - TITLE, x + shapes[name].width, y + shapes[name].room) for name, (x, y) in laid.spots.items()}
    for wire in connections:
        start = (rights[layer[wire.source]], laid.spots[wire.source][1] + shapes[wire.source].outputs[wire.slot])
        end = (lefts[layer[wire.target]], laid.spots[wire.target][1] + shapes[wire.target].inputs[wire.input])
        others = [box for name, box in boxes.items() if name not in (wire.source, wire.target)]
        if runs_behind(Wire((start, end)), others):
            passed = [Lane(wire.source, wire.slot, one) for one in range(layer[wire.source] + 1, layer[wire.target])]
            points = [
                (x, best[lane])
                for lane in passed
                for x in (lefts[lane.layer] - LANE_END, rights[lane.layer] + LANE_END)
            ]
            laid.reroutes[wire] = _without_idle(start, points, end)
    return laid


def _without_idle(start: Point, points: Iterable[Point], end: Point) -> list[Point]:
    """Leaves out the points in the middle of a straight wire."""
    path = [start, *points, end]
    return [
        point
        for before, point, after in zip(path, path[1:], path[2:])
        if not (abs(before[1] - point[1]) < 1 and abs(point[1] - after[1]) < 1)
    ]


def _edges(
    shapes: Mapping[str, Shape], connections: Sequence[Connection], layer: Mapping[str, int]
) -> tuple[list[list[Edge]], list[list[Lane]]]:
    """The edges from each column to the next, and the lanes of each column. The wires of an output share their lanes."""
    edges: list[dict[Edge, None]] = [{} for _ in range(max(layer.values()) + 1)]
    lanes: list[dict[Lane, None]] = [{} for _ in edges]
    for wire in connections:
        here: Item = wire.source
        at = shapes[wire.source].outputs[wire.slot]
        for number in range(layer[wire.source] + 1, layer[wire.target]):
            lane = Lane(wire.source, wire.slot, number)
            lanes[number][lane] = None
            edges[number - 1][(here, at, lane, 0.0)] = None
            here, at = lane, 0.0
        edges[layer[wire.target] - 1][(here, at, wire.target, shapes[wire.target].inputs[wire.input])] = None
    return [list(one) for one in edges], [list(one) for one in lanes]


def _lefts(
    shapes: Mapping[str, Shape],
    columns: Sequence[tuple[int, list[str]]],
    edges: Sequence[Sequence[Edge]],
    heights: Mapping[Item, float],
    left: float,
) -> list[float]:
    lefts, x = [], left + GROUP_MARGIN
    for number, (group, names) in enumerate(columns):
        if number:
            least = WITHIN_GROUP if group == columns[number - 1][0] else BETWEEN_GROUPS
            x += max([least, *(_gap(edge, heights) for edge in edges[number - 1])])
        lefts.append(x)
        x += max(shapes[name].width for name in names)
    return lefts


def _gap(edge: Edge, heights: Mapping[Item, float]) -> float:
    """How far apart two columns must be, so that this wire between them swings out behind neither."""
    a, at, b, to = edge
    drop = heights[b] + to - heights[a] - at
    out, back = LANE_END * isinstance(a, Lane), LANE_END * isinstance(b, Lane)
    for gap in range(0, 3000, 10):
        wire = Wire(((out, 0), (gap - back, drop)), from_reroute=isinstance(a, Lane), to_reroute=isinstance(b, Lane))
        overhang = CLEARANCE if out or back else OVERHANG
        if not runs_behind(wire, [(-1000, -9999, -overhang, 9999), (gap + overhang, -9999, 1000 + gap, 9999)]):
            return gap
    raise ValueError(f"A wire that falls {drop} pixels fits in no gap.")


# The order of the items in a column, and their heights


def _best_order(
    shapes: Mapping[str, Shape], layers: list[list[Item]], edges: Sequence[list[Edge]]
) -> dict[Item, float]:
    """The height of each item: fewest crossings and the order of the description, then the straightest wires."""
    shuffler = random.Random(0)
    told = {item: place for items in layers for place, item in enumerate(items) if not isinstance(item, Lane)}
    best: tuple[tuple[float, float], dict[Item, float]] | None = None
    for attempt in range(RESTARTS):
        order = [list(items) for items in layers]
        if attempt:
            for items in order:
                shuffler.shuffle(items)
        tangle = _improve(order, edges, told)
        if best is None or tangle <= best[0][0]:
            bends, heights = _heights(shapes, order, edges)
            if best is None or (tangle, bends) < best[0]:
                best = (tangle, bends), heights
    assert best is not None
    return best[1]


def _improve(order: list[list[Item]], edges: Sequence[list[Edge]], told: Mapping[Item, int]) -> float:
    """Moves items to better places in their columns, until no move helps. Returns the rest: crossings, and nodes out of the described order."""

    def cost(number: int) -> float:
        """Of this column's order and its wires to both sides."""
        pairs = [pair for pair in (number - 1, number) if 0 <= pair < len(order) - 1]
        return sum(_crossings(order, edges, pair) for pair in pairs) + OUT_OF_ORDER * _inversions(order[number], told)

    moved = True
    while moved:
        moved = False
        for number, items in enumerate(order):
            for item in list(items):
                best = cost(number)
                rest = [other for other in items if other != item]
                for place in range(len(items)):
                    order[number] = [*rest[:place], item, *rest[place:]]
                    there = cost(number)
                    if there < best - 1e-9:
                        best, items, moved = there, order[number], True
                order[number] = items
    crossings = sum(_crossings(order, edges, number) for number in range(len(order) - 1))
    return crossings + OUT_OF_ORDER * sum(_inversions(items, told) for items in order)


def _inversions(items: Sequence[Item], told: Mapping[Item, int]) -> int:
    """How many pairs of nodes are not in the order of the description."""
    places = [told[item] for item in items if item in told]
    return sum(other > one for number, one in enumerate(places) for other in places[:number])


def _crossings(order: Sequence[Sequence[Item]], edges: Sequence[Sequence[Edge]], number: int) -> int:
    """How many wires between this column and the next cross."""
    left = {item: place for place, item in enumerate(order[number])}
    right = {item: place for place, item in enumerate(order[number + 1])}
    ends = [((left[a], at), (right[b], to)) for a, at, b, to in edges[number]]
    return sum(
        (one[0] < other[0] and one[1] > other[1]) or (one[0] > other[0] and one[1] < other[1])
        for place, one in enumerate(ends)
        for other in ends[:place]
    )


def _heights(
    shapes: Mapping[str, Shape], order: Sequence[Sequence[Item]], edges: Sequence[Sequence[Edge]]
) -> tuple[float, dict[Item, float]]:
    """(how bent the wires are, {item: height}): the linear program that keeps wires level, and nodes high, in the given order."""
    items = [item for column in order for item in column]
    place = {item: number for number, item in enumerate(items)}
    wires = [edge for column in edges for edge in column]
    count = len(items) + len(wires)
    cost = np.full(count, UPWARDS)
    rows: list[np.ndarray] = []
    most: list[float] = []
    leaving = Counter((a, at) for a, at, _, _ in wires)
    arriving = Counter(b for a, at, b, _ in wires if leaving[a, at] == 1)
    for number, (a, at, b, to) in enumerate(wires):
        bend = 1 + (STRAIGHT - 1) * (isinstance(a, Lane) + isinstance(b, Lane)) / 2
        # A wire counts less if it is one of several, so that a node stands at the height of what it alone belongs to.
        cost[len(items) + number] = bend / (leaving[a, at] * max(1, arriving[b]))
        for sign in (1, -1):  # the bend is at least y(a) + at - y(b) - to, and at least its opposite
            row = np.zeros(count)
            row[place[a]], row[place[b]], row[len(items) + number] = sign, -sign, -1
            rows.append(row)
            most.append(sign * (to - at))
    for column in order:
        for upper, lower in pairwise(column):
            row = np.zeros(count)
            row[place[upper]], row[place[lower]] = 1, -1
            rows.append(row)
            most.append(-_distance(shapes, upper, lower))
    least = [GROUP_TITLE + GROUP_MARGIN + _above(item) for item in items]
    bounds = [(low, None) for low in least] + [(0, None)] * len(wires)
    solved = linprog(cost, A_ub=np.array(rows), b_ub=np.array(most), bounds=bounds)
    if not solved.success:
        raise RuntimeError(f"The layout could not be solved: {solved.message}")
    return float(solved.fun), {item: float(round(solved.x[place[item]])) for item in items}


def _above(item: Item) -> float:
    return 0 if isinstance(item, Lane) else ABOVE


def _distance(shapes: Mapping[str, Shape], upper: Item, lower: Item) -> float:
    if isinstance(upper, Lane):
        return LANE if isinstance(lower, Lane) else LANE + _above(lower)
    return shapes[str(upper)].room + (LANE if isinstance(lower, Lane) else NODE_GAP + _above(lower) - 24)
