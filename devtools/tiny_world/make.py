"""Trains the small models of the tiny world again: `python dev.py train [NAME ...]`.

    python dev.py train                 all models, each as soon as the models that it needs exist
    python dev.py train unet_sd15       only these; the models that they need must exist
    python dev.py train --missing       only models that don't exist yet
    python dev.py train unet_x2 --go-on continues from the existing weights
    python dev.py train --list          lists the models and what each needs
    python dev.py train --batch 32      with small batches, for two cores; the plans' batches are for a GPU

Every model starts from a fixed seed. A GPU is used if there is one; --jobs 6 then trains up to six models in parallel.
Sheets of pictures and success rates are saved in .relay/tiny-world.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from .recipes import RECIPES, Recipe
from .store import MODELS, Store
from .training import Limits, Start


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list; none: all of them")
    parser.add_argument("--missing", action="store_true", help="only models that don't exist yet")
    parser.add_argument(
        "--go-on", action="store_true", help="continue from the existing weights; only for models with one module"
    )
    parser.add_argument("--list", action="store_true", help="list the models without training")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of models trained in parallel")
    parser.add_argument("--batch", type=int, metavar="N", help="maximum number of 256 x 256 pictures per step")
    parser.add_argument("--steps", type=int, metavar="N", help="maximum number of steps")
    parser.add_argument("--scenes", type=int, metavar="N", help="maximum number of 256 x 256 pictures of a kind")
    parser.add_argument(
        "--seconds",
        type=limit,
        action="append",
        default=[],
        metavar="[NAME=]N",
        help="maximum time of a training: of all, or of the named one; can be repeated",
    )
    parser.add_argument("--no-look", action="store_true", help="paint nothing afterwards")
    options = parser.parse_args(arguments)
    store = Store()
    if options.list:
        for name, recipe in RECIPES.items():
            print(f"{name:26} {', '.join(recipe.needs)}")
        return 0
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}. The models are: {', '.join(RECIPES)}")
    names = [name for name in options.names or RECIPES if not (options.missing and store.has(RECIPES[name].makes[0]))]
    if options.go_on and (unable := [name for name in names if not goes_on(name, store)]):
        parser.error(
            f"--go-on: {', '.join(unable)} can't continue; it needs an existing model with one module of weights"
        )
    if len(names) > 1:
        return run_all(names, store, options.jobs, passed_on(arguments, options.names))
    for name in names:
        Limits.batch = options.batch or Limits.batch
        Limits.steps = options.steps or Limits.steps
        Limits.scenes = options.scenes or Limits.scenes
        Limits.seconds = seconds_of(name, options.seconds)
        Start.weights = store.load(name).state_dict() if options.go_on else None
        if not train_one(name, RECIPES[name], store, look=not options.no_look):
            return 1
    return 0


def goes_on(name: str, store: Store) -> bool:
    """Whether training can continue from what is stored. vae_sdxl isn't trained (it is vae_sd15, rotated), and only a part of the depth
    decoder is."""
    whole = name.split("_")[0] in ("vae", "movq", "unet", "taesd", "prior")
    return whole and name not in ("vae_sdxl", "unet_kandinsky_depth") and store.has(name)


def passed_on(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The options for each of several trainings in separate processes."""
    return [argument for argument in arguments if argument not in names and argument != "--missing"]


def limit(text: str) -> tuple[str, float]:
    """Parses `NAME=N` or `N` to (name or "", number)."""
    name, _, number = text.rpartition("=")
    return name, float(number)


def seconds_of(name: str, given: Sequence[tuple[str, float]]) -> float:
    return [Limits.seconds, *(number for which, number in given if which in ("", name))][-1]


def train_one(name: str, recipe: Recipe, store: Store, *, look: bool) -> bool:
    lacking = [need for need in recipe.needs if not store.has(need)]
    if lacking:
        print(f"{name} needs {', '.join(lacking)}, which is not in {MODELS}", file=sys.stderr)
        return False
    began = time.monotonic()
    made = recipe.make(store)
    sizes = [
        store.save_tensors(part, result) if isinstance(result, dict) else store.save(part, result, base=recipe.base)
        for part, result in made.items()
    ]
    print(f"== {name}: {(time.monotonic() - began) / 60:.1f} min, {sum(sizes):.2f} MB", flush=True)
    outdated = [other for other, made_from in RECIPES.items() if made_from.base in recipe.makes and store.has(other)]
    if outdated:
        print(f"{', '.join(outdated)} store only the difference from {name}: train them again too", flush=True)
    if look:
        recipe.look(store)
    return True


def run_all(names: Sequence[str], store: Store, jobs: int, options: Sequence[str]) -> int:
    """Trains each in a separate process, as soon as the models that it needs are trained. Skips those that depend on a failed one."""
    makers = {part: name for name in names for part in RECIPES[name].makes}
    waiting, failed = list(names), set[str]()
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        for name in list(waiting):
            needed = {makers[need] for need in RECIPES[name].needs if need in makers}
            if needed & failed:
                print(f"{name} is skipped: {', '.join(sorted(needed & failed))} failed", file=sys.stderr, flush=True)
                failed.add(name)
                waiting.remove(name)
            elif len(running) < jobs and not needed & {*waiting, *running}:
                command = [sys.executable, "-m", "tiny_world.make", name, *options]
                running[name] = subprocess.Popen(command)
                waiting.remove(name)
        time.sleep(0.2)
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                if process.returncode:
                    print(f"{name} FAILED", file=sys.stderr, flush=True)
                    failed.add(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
