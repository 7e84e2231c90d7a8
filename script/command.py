"""Writes the graph of a file as a diffusers script.

    python -m relay_script picture.png > picture.py

The file is a PNG that ComfyUI saved, or a workflow exported with "Export (API)". The script runs in ComfyUI's folder: it reads
pictures from input, and writes to output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..pipelines.base.errors import RelayError
from .files import read_file
from .known_models import Shelf
from .write import write_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="relay_script", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a PNG that ComfyUI saved, or a workflow in API format")
    parser.add_argument("-o", "--output", type=Path, help="where to write the script; default: standard output")
    parser.add_argument(
        "--node", action="append", default=[], metavar="ID", help="write only what leads to this node; can be repeated"
    )
    parser.add_argument("--stubs", action="store_true", help="write other nodes as functions for you to fill in")
    parser.add_argument(
        "--models", type=Path, help="ComfyUI's models folder, to find out what kind a folder's model is"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=CLASS",
        help="the class of a model's pipeline, such as StableDiffusionXLPipeline, if it is not on this machine",
    )
    options = parser.parse_args(arguments)
    said = dict(entry.split("=", 1) for entry in options.model if "=" in entry)
    if len(said) != len(options.model):
        parser.error("--model takes NAME=CLASS, once for each name")
    try:
        found = read_file(options.file)
        shelf = Shelf(options.models, said=said)
        text = write_script(found.prompt, shelf, chosen=options.node, stubs=options.stubs, workflow=found.workflow)
        if options.output is not None:
            options.output.write_text(text, "utf-8", newline="\n")
    except (RelayError, OSError) as error:
        print(f"relay_script: {error}", file=sys.stderr)
        return 1
    if options.output is None:
        sys.stdout.buffer.write(text.encode())
    return 0
