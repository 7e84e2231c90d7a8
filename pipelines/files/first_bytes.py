"""Tells from a file's first bytes what it is, if it is not a safetensors file."""

from __future__ import annotations

import re

START = 1_024
"""How many bytes are examined."""
GIT_LFS = b"version https://git-lfs"
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""The pickle protocols 2 to 5."""
ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
KINDS = (
    ("an archive", (*ZIPS, b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ")),
    ("an image", (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")),
    ("a GGUF file, whose weights are quantised", (b"GGUF",)),
    ("an HDF5 file", (b"\x89HDF",)),
    ("a NumPy file", (b"\x93NUMPY",)),
)
AN_ARCHIVE = "an archive"
WHAT_TO_DO = {
    AN_ARCHIVE: "unpack it and use the file inside",
    "an image": "use the file with the weights",
    "a GGUF file, whose weights are quantised": "use the .safetensors file of the model, in float16 or float32",
}
WEB_PAGE = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|error)", re.IGNORECASE)
MOST_SHOWN = 60


def is_pickle(start: bytes) -> bool:
    """Whether the file is a pickle, or a zip with a pickle as its first file, as torch writes it."""
    return start.startswith(PICKLES) or (start.startswith(ZIPS) and b".pkl" in start[:256])


def what_it_is(start: bytes) -> str | None:
    """What the file is and what to do, as the end of a sentence that begins with its name. None for anything else and for a pickle.

    ``start``: the first :data:`START` bytes, or the whole file if it is shorter.
    """
    if not start:
        return "is empty: download it again"
    if not start.strip(b"\0"):
        return "begins with only zeros, like an unfinished download: download it again"
    if start.startswith(GIT_LFS):
        return "is a git-lfs pointer, not the file itself: run `git lfs pull` there"
    if WEB_PAGE.match(start):
        return "is a web page that was downloaded instead of the file: log in or accept the terms on that site, and download it again"
    for what, starts in KINDS:
        if start.startswith(starts) or (what == AN_ARCHIVE and start[257:262] == b"ustar"):
            return f"is {what}: {WHAT_TO_DO.get(what, 'use the .safetensors file of the model')}"
    text = start.decode("utf-8", "replace").strip()
    if text.isascii() and all(char.isprintable() or char.isspace() for char in text):
        shown = " ".join(text.split())
        shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."
        return f"is a text file ({shown!r}), maybe an error message that was downloaded instead of the file: download it again"
    return None
