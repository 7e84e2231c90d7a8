"""Small workflows in the page's UI format, each with one thing that a converter to API format has to understand."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

ALWAYS, MUTED, BYPASSED = 0, 2, 4
FROM_OUTSIDE, TO_OUTSIDE = -10, -20
"""The ids of a subgraph's own input and output."""
INNER, OUTER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

Slot = tuple[str, str]
Link = tuple[int, int, int, int, int, str]
"""(id, source node, its output, target node, its input, type)"""


def node(
    id: int,
    type: str,
    inputs: Sequence[Slot | tuple[str, str, str]] = (),
    outputs: Sequence[Slot] = (),
    values: Sequence[Any] | Mapping[str, Any] = (),
    mode: int = ALWAYS,
    title: str = "",
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An input with a third entry is the input of the widget of that name."""
    made: dict[str, Any] = {
        "id": id,
        "type": type,
        "pos": [id * 250 % 1500, id * 60],
        "size": [220, 120],
        "flags": {},
        "order": id,
        "mode": mode,
        "inputs": [
            {"name": one[0], "type": one[1], "link": None, **({"widget": {"name": one[2]}} if len(one) == 3 else {})}
            for one in inputs
        ],
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in outputs],
        "properties": {"Node name for S&R": type, **(properties or {})},
        "widgets_values": copy.deepcopy(values) if isinstance(values, Mapping) else list(values),
    }
    if title:
        made["title"] = title
    return made


def connect(nodes: Sequence[dict[str, Any]], links: Sequence[Link]) -> None:
    """Writes each link into the slots of its nodes, as the page does."""
    named = {one["id"]: one for one in nodes}
    for link, source, output, target, slot, _ in links:
        if source in named:
            named[source]["outputs"][output]["links"].append(link)
        if target in named:
            named[target]["inputs"][slot]["link"] = link


def workflow(
    nodes: Sequence[dict[str, Any]], links: Sequence[Link], subgraphs: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    connect(nodes, links)
    whole = {
        "id": "00000000-0000-4000-8000-000000000000",
        "revision": 0,
        "last_node_id": max(one["id"] for one in nodes),
        "last_link_id": max((link[0] for link in links), default=0),
        "nodes": list(nodes),
        "links": [list(link) for link in links],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }
    return whole | ({"definitions": {"subgraphs": list(subgraphs)}} if subgraphs else {})


def subgraph(
    id: str,
    name: str,
    nodes: Sequence[dict[str, Any]],
    links: Sequence[Link],
    inputs: Sequence[Slot],
    outputs: Sequence[Slot],
) -> dict[str, Any]:
    connect(nodes, links)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")

    def slots(kind: str, named: Sequence[Slot]) -> list[dict[str, Any]]:
        """A slot's links are those that begin at (end at) the subgraph's own input (output)."""
        end, place = (1, 2) if kind == "in" else (3, 4)
        border = FROM_OUTSIDE if kind == "in" else TO_OUTSIDE
        return [
            {
                "id": f"{id[:-4]}{kind == 'in':x}{at:03x}",
                "name": slot,
                "type": type,
                "linkIds": [link[0] for link in links if link[end] == border and link[place] == at],
                "pos": [0, 20 * at],
            }
            for at, (slot, type) in enumerate(named)
        ]

    return {
        "id": id,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": 50, "lastLinkId": 50, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": FROM_OUTSIDE, "bounding": [-200, 0, 120, 60]},
        "outputNode": {"id": TO_OUTSIDE, "bounding": [900, 0, 120, 60]},
        "inputs": slots("in", inputs),
        "outputs": slots("out", outputs),
        "widgets": [],
        "nodes": list(nodes),
        "groups": [],
        "links": [dict(zip(keys, link)) for link in links],
        "extra": {},
    }


def blank(id: int = 1, values: Sequence[Any] = (64, 32, 1, 255), mode: int = ALWAYS, **more: Any) -> dict[str, Any]:
    widgets = [(name, "INT", name) for name in ("width", "height", "batch_size", "color")]
    return node(id, "EmptyImage", widgets, [("IMAGE", "IMAGE")], values, mode, **more)


def scaled(id: int, values: Sequence[Any] = ("nearest-exact", 2.0), mode: int = ALWAYS, **more: Any) -> dict[str, Any]:
    slots = [("image", "IMAGE"), ("upscale_method", "COMBO", "upscale_method"), ("scale_by", "FLOAT", "scale_by")]
    return node(id, "ImageScaleBy", slots, [("IMAGE", "IMAGE")], values, mode, **more)


def save(id: int, prefix: str = "made", mode: int = ALWAYS, **more: Any) -> dict[str, Any]:
    slots = [("images", "IMAGE"), ("filename_prefix", "STRING", "filename_prefix")]
    return node(id, "SaveImage", slots, [], [prefix], mode, **more)


def chain(middle: dict[str, Any], first: dict[str, Any] | None = None, prefix: str = "made") -> dict[str, Any]:
    """A blank picture (1), a node (2), a saved picture (3)."""
    links: list[Link] = [(1, 1, 0, 2, 0, "IMAGE"), (2, 2, 0, 3, 0, "IMAGE")]
    return workflow([first or blank(), middle, save(3, prefix)], links)


def composite(mode: int) -> dict[str, Any]:
    """The mask of a picture file, through a node whose inputs and outputs have different types."""
    loaded = node(1, "LoadImage", [], [("IMAGE", "IMAGE"), ("MASK", "MASK")], ["example.png", "image"])
    grown = node(2, "GrowMask", [("mask", "MASK")], [("MASK", "MASK")], [4, True], mode)
    drawn = node(4, "MaskToImage", [("mask", "MASK")], [("IMAGE", "IMAGE")], [], mode)
    cut = node(
        5,
        "JoinImageWithAlpha",
        [("image", "IMAGE"), ("alpha", "MASK")],
        [("IMAGE", "IMAGE")],
    )
    links: list[Link] = [
        (1, 1, 1, 2, 0, "MASK"),
        (2, 2, 0, 4, 0, "MASK"),
        (3, 2, 0, 5, 1, "MASK"),
        (4, 4, 0, 5, 0, "IMAGE"),
        (5, 5, 0, 3, 0, "IMAGE"),
    ]
    return workflow([loaded, grown, save(3), drawn, cut], links)


def with_reroutes() -> dict[str, Any]:
    bends = [node(id, "Reroute", [("", "*")], [("", "*")]) for id in (4, 5)]
    links: list[Link] = [
        (1, 1, 0, 4, 0, "*"),
        (2, 4, 0, 5, 0, "IMAGE"),
        (3, 5, 0, 2, 0, "IMAGE"),
        (4, 2, 0, 3, 0, "IMAGE"),
    ]
    return workflow([blank(), scaled(2), save(3), *bends], links)


def with_primitives() -> dict[str, Any]:
    """A primitive of the page (its value is written into the widget), and a node of the host that gives a number."""
    number = node(4, "PrimitiveNode", [], [("INT", "INT")], [96, "fixed"])
    number["outputs"][0]["widget"] = {"name": "width"}
    given = node(5, "PrimitiveInt", [("value", "INT", "value")], [("INT", "INT")], [48, "randomize"])
    text = node(6, "PrimitiveNode", [], [("STRING", "STRING")], ["of %EmptyImage.height%"])
    text["outputs"][0]["widget"] = {"name": "filename_prefix"}
    links: list[Link] = [
        (1, 4, 0, 1, 0, "INT"),
        (2, 5, 0, 1, 1, "INT"),
        (3, 1, 0, 2, 0, "IMAGE"),
        (4, 2, 0, 3, 0, "IMAGE"),
        (5, 6, 0, 3, 1, "STRING"),
    ]
    return workflow([blank(), scaled(2), save(3), number, given, text], links)


def sampling(prompt: str, seed_control: str = "randomize") -> dict[str, Any]:
    """ComfyUI's own text-to-image: the seed has a second value, which says how it changes."""
    load = node(
        1, "CheckpointLoaderSimple", [], [("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")], ["a.safetensors"]
    )
    text = node(2, "CLIPTextEncode", [("clip", "CLIP")], [("CONDITIONING", "CONDITIONING")], [prompt], title="Text")
    latent = node(4, "EmptyLatentImage", [], [("LATENT", "LATENT")], [64, 64, 1])
    slots = [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent_image", "LATENT")]
    values = [7, seed_control, 20, 8.0, "euler", "normal", 1.0]
    run = node(5, "KSampler", slots, [("LATENT", "LATENT")], values)
    decode = node(6, "VAEDecode", [("samples", "LATENT"), ("vae", "VAE")], [("IMAGE", "IMAGE")])
    links: list[Link] = [
        (1, 1, 1, 2, 0, "CLIP"),
        (2, 1, 0, 5, 0, "MODEL"),
        (3, 2, 0, 5, 1, "CONDITIONING"),
        (4, 2, 0, 5, 2, "CONDITIONING"),
        (5, 4, 0, 5, 3, "LATENT"),
        (6, 5, 0, 6, 0, "LATENT"),
        (7, 1, 2, 6, 1, "VAE"),
        (8, 6, 0, 3, 0, "IMAGE"),
    ]
    return workflow([load, text, latent, run, decode, save(3, "of %KSampler.seed% %Text.text%")], links)


def inner_definition() -> dict[str, Any]:
    """A scaling whose factor is an input of the subgraph (a promoted widget), then a second scaling."""
    inside = [scaled(1, ("nearest-exact", 1.5)), scaled(2, ("bilinear", 0.5), title="Second")]
    links: list[Link] = [
        (1, FROM_OUTSIDE, 0, 1, 0, "IMAGE"),
        (2, FROM_OUTSIDE, 1, 1, 2, "FLOAT"),
        (3, 1, 0, 2, 0, "IMAGE"),
        (4, 2, 0, TO_OUTSIDE, 0, "IMAGE"),
    ]
    return subgraph(
        INNER, "Two scalings", inside, links, [("image", "IMAGE"), ("scale_by", "FLOAT")], [("IMAGE", "IMAGE")]
    )


def instance(
    id: int, type: str = INNER, values: Sequence[Any] = (1.5,), mode: int = ALWAYS, **more: Any
) -> dict[str, Any]:
    slots = [("image", "IMAGE"), ("scale_by", "FLOAT", "scale_by")]
    return node(id, type, slots, [("IMAGE", "IMAGE")], values, mode, **more)


def with_subgraph(mode: int = ALWAYS, values: Sequence[Any] = (1.5,), linked: bool = False) -> dict[str, Any]:
    number = [node(7, "PrimitiveFloat", [("value", "FLOAT", "value")], [("FLOAT", "FLOAT")], [3.5])] if linked else []
    links: list[Link] = [(1, 1, 0, 2, 0, "IMAGE"), (2, 2, 0, 3, 0, "IMAGE")]
    links += [(3, 7, 0, 2, 1, "FLOAT")] if linked else []
    return workflow([blank(), instance(2, values=values, mode=mode), save(3), *number], links, [inner_definition()])


def with_proxy_widgets(
    values: Sequence[Any] = (1.5, "bilinear"),
    shown_widgets: Sequence[tuple[str, str]] = (("-1", "scale_by"), ("2", "upscale_method")),
) -> dict[str, Any]:
    """Widgets of inner nodes that the subgraph's node shows without an input."""
    shown = instance(2, values=values, properties={"proxyWidgets": [list(one) for one in shown_widgets]})
    links: list[Link] = [(1, 1, 0, 2, 0, "IMAGE"), (2, 2, 0, 3, 0, "IMAGE")]
    return workflow([blank(), shown, save(3)], links, [inner_definition()])


def nested(outer_mode: int = ALWAYS, inner_mode: int = ALWAYS, outer_value: float = 1.5) -> dict[str, Any]:
    """The factor passes through two borders."""
    inside = [instance(4, INNER, (1.5,), inner_mode), scaled(9, ("lanczos", 1.25))]
    links: list[Link] = [
        (1, FROM_OUTSIDE, 0, 4, 0, "IMAGE"),
        (2, FROM_OUTSIDE, 1, 4, 1, "FLOAT"),
        (3, 4, 0, 9, 0, "IMAGE"),
        (4, 9, 0, TO_OUTSIDE, 0, "IMAGE"),
    ]
    slots: list[Slot] = [("image", "IMAGE"), ("scale_by", "FLOAT")]
    outer = subgraph(OUTER, "Three scalings", inside, links, slots, [("IMAGE", "IMAGE")])
    outside: list[Link] = [(1, 1, 0, 9, 0, "IMAGE"), (2, 9, 0, 3, 0, "IMAGE")]
    nodes = [blank(), instance(9, OUTER, (outer_value,), outer_mode), save(3)]
    return workflow(nodes, outside, [inner_definition(), outer])


def with_primitive_into_subgraph() -> dict[str, Any]:
    """The primitive reaches the subgraph's widget over a reroute."""
    number = node(7, "PrimitiveNode", [], [("FLOAT", "FLOAT")], [3.25, "fixed"])
    number["outputs"][0]["widget"] = {"name": "scale_by"}
    bend = node(8, "Reroute", [("", "*")], [("", "FLOAT")])
    outer: list[Link] = [(1, 1, 0, 2, 0, "IMAGE"), (2, 2, 0, 3, 0, "IMAGE")]
    links = [*outer, (3, 7, 0, 8, 0, "FLOAT"), (4, 8, 0, 2, 1, "FLOAT")]
    return workflow([blank(), instance(2), save(3), number, bend], links, [inner_definition()])


def two_types(mode: int) -> dict[str, Any]:
    """A node between pictures and masks, two of whose inputs have the type of its output."""
    loaded = node(1, "LoadImage", [], [("IMAGE", "IMAGE"), ("MASK", "MASK")], ["example.png", "image"])
    slots = [("destination", "IMAGE"), ("source", "IMAGE"), ("mask", "MASK")]
    pasted = node(2, "ImageCompositeMasked", slots, [("IMAGE", "IMAGE")], [0, 0, False], mode)
    links: list[Link] = [
        (1, 4, 0, 2, 0, "IMAGE"),
        (2, 1, 0, 2, 1, "IMAGE"),
        (3, 1, 1, 2, 2, "MASK"),
        (4, 2, 0, 3, 0, "IMAGE"),
    ]
    return workflow([loaded, pasted, save(3), blank(4)], links)


def twice() -> dict[str, Any]:
    """Two nodes of one subgraph, one after the other."""
    links: list[Link] = [(1, 1, 0, 2, 0, "IMAGE"), (2, 2, 0, 4, 0, "IMAGE"), (3, 4, 0, 3, 0, "IMAGE")]
    return workflow([blank(), instance(2), instance(4), save(3)], links, [inner_definition()])


def saved_workflows() -> dict[str, dict[str, Any]]:
    """{what is special about it: the workflow}"""
    return {
        "plain": chain(scaled(2)),
        "muted": chain(scaled(2, mode=MUTED)),
        "muted save": chain(scaled(2)) | {"nodes": [blank(), scaled(2), save(3, mode=MUTED)]},
        "bypassed": chain(scaled(2, mode=BYPASSED)),
        "bypassed, nothing before it": chain(scaled(2), blank(mode=BYPASSED)),
        "bypassed, one type": composite(ALWAYS),
        "bypassed, another type": composite(BYPASSED),
        "muted masks": composite(MUTED),
        "reroutes": with_reroutes(),
        "primitives": with_primitives(),
        "seed control": sampling("a cat"),
        "comments": sampling("a cat // not this\nand a dog /* nor\nthis */ here"),
        "escaped braces": sampling(r"a \{cat\} | a dog} \| (a bird) \(x\) // end"),
        "date": chain(scaled(2), prefix="%date:yyyy-MM-dd%/%date:yy M d%_%EmptyImage.width%_%Nobody.width%_%width%"),
        "title in a name": chain(
            scaled(2, title="Big"), prefix="%Big.upscale_method% %ImageScaleBy.scale_by% %Big.image%"
        ),
        "too few values": chain(scaled(2, ("bilinear",))),
        "no values": chain(scaled(2, ())),
        "a note": workflow([blank(), save(3), node(4, "Note", values=["a text"])], [(1, 1, 0, 3, 0, "IMAGE")]),
        "subgraph": with_subgraph(),
        "subgraph, another promoted value": with_subgraph(values=(2.5,)),
        "subgraph, linked": with_subgraph(linked=True),
        "subgraph, muted": with_subgraph(MUTED),
        "subgraph, bypassed": with_subgraph(BYPASSED),
        "subgraph, proxy widgets": with_proxy_widgets(),
        "subgraph, another proxy value": with_proxy_widgets((2.5, "area")),
        "subgraph, proxy widgets first": with_proxy_widgets(
            ("area", 2.5), (("2", "upscale_method"), ("-1", "scale_by"))
        ),
        "subgraph, own widget not listed": with_proxy_widgets((2.5, "area"), (("2", "upscale_method"),)),
        "subgraph, primitive over a reroute": with_primitive_into_subgraph(),
        "subgraph, twice": twice(),
        "nested, another value": nested(outer_value=2.5),
        "two inputs of a type": two_types(ALWAYS),
        "two inputs of a type, bypassed": two_types(BYPASSED),
        "nested": nested(),
        "nested, inner bypassed": nested(inner_mode=BYPASSED),
        "nested, inner muted": nested(inner_mode=MUTED),
        "nested, outer bypassed": nested(outer_mode=BYPASSED),
    }
