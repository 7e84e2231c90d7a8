"""In the host, for the tests: writes each warning of the process into warnings.jsonl of the base folder, with the logger and file it comes from.

The server's log has the text alone, and each library a handler and a format of its own.
"""

import json
import logging
import warnings

import folder_paths

NODE_CLASS_MAPPINGS = {}
FILE = "warnings.jsonl"
APART = ("", "diffusers", "transformers", "huggingface_hub")
"""Loggers that hand nothing on to the one above: the root and those of these libraries."""


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
