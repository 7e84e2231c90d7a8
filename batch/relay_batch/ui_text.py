"""What the page does to texts when it queues: comments in prompts, and %date% and %node.widget% in file names."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

FILE_NAME_NODES = (
    *("SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveWEBM", "SaveVideo", "SaveAudio", "SaveAudioMP3"),
    *("SaveAudioOpus", "SaveGLB", "SaveSVGNode", "SaveLatent", "CLIPSave", "VAESave", "ModelSave", "LoraSave"),
)
FILE_NAME = "filename_prefix"
LEFT_TO_THE_HOST = ("width", "height")
COMMENT = re.compile(r"/\*[\s\S]*?\*/|//.*")
ESCAPED = re.compile(r"\\([{}|])")
CHOICE = re.compile(r"(?<!\\)\{")
FIELD = re.compile(r"%([^%]+)%")
NOT_IN_A_NAME = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")

WidgetText = Callable[[str, str], "str | None"]
"""(node's type or title, widget) -> the widget's value as text; None if there is no such widget."""


def has_choice(text: str) -> bool:
    """Whether the page would choose at random between parts of the text: {a|b}."""
    return CHOICE.search(COMMENT.sub("", text)) is not None


def without_comments(text: str) -> str:
    return ESCAPED.sub(r"\1", COMMENT.sub("", text))


def filled(text: str, widget_text: WidgetText, now: datetime) -> str:
    r"""Replaces %date:FORMAT% and %node.widget%. What names no widget stays, and %width% and %height% are the host's."""

    def one(match: re.Match[str]) -> str:
        parts = match[1].split(".")
        if len(parts) != 2:
            return format_date(parts[0][5:], now) if parts[0].startswith("date:") else match[0]
        value = widget_text(parts[0], parts[1])
        return match[0] if value is None else NOT_IN_A_NAME.sub("_", value)

    return FIELD.sub(one, text)


def format_date(text: str, now: datetime) -> str:
    values = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def one(match: re.Match[str]) -> str:
        part = match[0]
        if part[0] == "y":
            return {"yy": f"{now.year % 100:02}", "yyyy": str(now.year)}.get(part, part)
        return str(values[part[0]]).zfill(len(part))

    return DATE_PART.sub(one, text)
