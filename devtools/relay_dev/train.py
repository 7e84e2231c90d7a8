"""Trains the small models of the tiny world: `python dev.py train [NAME ...]`. The models are in devtools/tiny_world."""

from __future__ import annotations

import sys

from tiny_world.make import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
