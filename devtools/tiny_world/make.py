"""Trains the small models of the tiny world anew: `python dev.py train [NAME ...]`.

    python dev.py train                 all of them, one after the other
    python dev.py train unet_sd15       only these; what they need has to be there
    python dev.py train --missing       only those that are not there yet
    python dev.py train --list          what there is, and what each needs

Every model starts from a fixed seed. Sheets of what each paints, and how often it is right, are left in .relay/tiny-world.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from .recipes import RECIPES
from .store import MODELS, Store


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list; none: all of them")
    parser.add_argument("--missing", action="store_true", help="only those that are not there yet")
    parser.add_argument("--list", action="store_true", help="name them, and train nothing")
    options = parser.parse_args(arguments)
    store = Store()
    if options.list:
        for name, recipe in RECIPES.items():
            print(f"{name:20} {', '.join(recipe.needs)}")
        return 0
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}. There are: {', '.join(RECIPES)}")
    for name in options.names or list(RECIPES):
        recipe = RECIPES[name]
        if options.missing and store.has(recipe.makes[0]):
            continue
        lacking = [need for need in recipe.needs if not store.has(need)]
        if lacking:
            print(f"{name} needs {', '.join(lacking)}, which is not in {MODELS}", file=sys.stderr)
            return 1
        began = time.monotonic()
        made = recipe.make(store)
        sizes = [
            store.save_tensors(part, result) if isinstance(result, dict) else store.save(part, result, base=recipe.base)
            for part, result in made.items()
        ]
        minutes = (time.monotonic() - began) / 60
        print(f"== {name}: {minutes:.1f} min, {sum(sizes):.2f} MB", flush=True)
        recipe.look(store)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
