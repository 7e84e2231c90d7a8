"""Runs scripts, each in a process of its own that begins with the libraries imported: script_process.py WORKPLACE NAME ...

WORKPLACE/NAME.py runs in the folder WORKPLACE/NAME; what it prints is in WORKPLACE/NAME.log. The names of those that failed are printed.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path


def import_libraries() -> None:
    import compel  # noqa: F401
    import peft  # noqa: F401
    import torch
    from diffusers import (  # noqa: F401
        KandinskyV22Img2ImgPipeline,
        KandinskyV22PriorPipeline,
        StableDiffusionControlNetImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        StableDiffusionLatentUpscalePipeline,
        StableDiffusionUpscalePipeline,
        StableDiffusionXLPipeline,
    )

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def run(workplace: Path, name: str) -> int:
    """The exit code of the script."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = os.open(workplace / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(workplace / name)
            runpy.run_path(str(workplace / f"{name}.py"), run_name="__main__")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    workplace = Path(sys.argv[1]).resolve()
    import_libraries()
    for name in sys.argv[2:]:
        if run(workplace, name) != 0:
            print(name, flush=True)


if __name__ == "__main__":
    main()
