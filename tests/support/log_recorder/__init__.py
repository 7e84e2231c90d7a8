"""A custom node pack for the tests: writes each warning in the host to warnings.jsonl in the base folder, with its logger and file.

The server's log has only the text, and each library has its own handler and format.
"""

import json
import logging
import warnings

import folder_paths

NODE_CLASS_MAPPINGS = {}
FILE = "warnings.jsonl"
APART = ("", "diffusers", "transformers", "huggingface_hub")
"""Loggers that don't propagate to their parent: the root and those of these libraries."""


def write(**entry):
    with open(f"{folder_paths.base_path}/{FILE}", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


class Recorder(logging.Handler):
    def emit(self, record):
        write(logger=record.name, level=record.levelname, file=record.pathname, text=record.getMessage())


def show(message, category, filename, lineno, file=None, line=None):
    write(logger="warnings", level=category.__name__, file=filename, text=str(message))


for name in APART:
    logging.getLogger(name).addHandler(Recorder(logging.WARNING))
warnings.showwarning = show
