"""The kinds of changes that a LoRA file can have for a layer, told by the roles of its tensors; see :data:`.lora_names.ENDS`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

BIASES = ("diff_b", "b_norm")
"""Differences of a bias, beside any kind or alone. LyCORIS has another name for those of norms."""


class Kind(NamedTuple):
    name: str
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    """Each must be there in one of its ways, and in no more than one. A way is a set of roles."""
    optional: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    """Roles that other kinds have too."""

    @property
    def own(self) -> set[str]:
        """The roles that only this kind has."""
        return {role for ways in self.needs for way in ways for role in way} | set(self.optional)


LOW_RANK = Kind("LoRA", ((("down",),), (("up",),)), ("mid", "magnitude"), ("alpha", "dora_scale"))
KINDS = (
    LOW_RANK,
    Kind(
        "LoHa",
        ((("hada_w1_a",),), (("hada_w1_b",),), (("hada_w2_a",),), (("hada_w2_b",),)),
        ("hada_t1", "hada_t2"),
        ("alpha", "dora_scale"),
    ),
    Kind(
        "LoKr",
        ((("lokr_w1",), ("lokr_w1_a", "lokr_w1_b")), (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))),
        ("lokr_t2",),
        ("alpha", "dora_scale"),
    ),
    Kind("OFT", ((("oft_blocks",),),), ("rescale",), ("alpha",)),
    Kind("full difference", ((("diff",),),)),
    Kind("norm", ((("w_norm",),),)),
)
BIAS_ALONE = Kind("bias", ())
TOGETHER = (("hada_t1", "hada_t2"), ("hada_t2", "hada_t1"), ("lokr_t2", "lokr_w2_a"))
"""Roles of which the first needs the second."""


class Lacking(ValueError):
    """A layer lacks a tensor, whose role is the text."""


def kind_of(roles: Iterable[str]) -> Kind:
    """The kind of a layer with tensors of these roles.

    Raises:
        Lacking: the layer is incomplete.
        ValueError: the tensors are not of one kind; the text completes the sentence "the layer ...".
    """
    roles = set(roles)
    own = roles - {*BIASES, "alpha", "dora_scale"}
    if not own and roles <= set(BIASES):
        return BIAS_ALONE
    fitting = [kind for kind in KINDS if own & kind.own] or [LOW_RANK]
    if len(fitting) > 1:
        raise ValueError(f"has the weights of several kinds: {' and '.join(kind.name for kind in fitting)}")
    (kind,) = fitting
    for ways in kind.needs:
        if lacking := _lacking(ways, roles):
            raise Lacking(lacking)
    for first, second in TOGETHER:
        if first in roles and second not in roles:
            raise Lacking(second)
    if strange := roles - kind.own - set(kind.takes) - set(BIASES):
        raise ValueError(f"has {', '.join(sorted(strange))} weights, which a layer of kind {kind.name} has not")
    return kind


def _lacking(ways: tuple[tuple[str, ...], ...], roles: set[str]) -> str:
    """A role that none of the ways can do without; empty if one is complete.

    Raises:
        ValueError: there are two ways at once.
    """
    begun = [way for way in ways if roles & set(way)]
    if len(begun) > 1:
        raise ValueError(f"has both {begun[0][0]} and {begun[1][0]} weights")
    chosen = begun[0] if begun else ways[0]
    return next((role for role in chosen if role not in roles), "")
