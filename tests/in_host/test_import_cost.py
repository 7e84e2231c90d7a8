"""The pack's cost at host startup: under 0.1 s, without heavy libraries."""

import json
import subprocess
import sys

from relay_host.comfyui import get_host
from relay_host.paths import ROOT

ALLOWED_SECONDS = 0.1
HEAVY = {"diffusers", "compel", "accelerate", "peft", "transformers", "bitsandbytes", "xformers"}
ATTEMPTS = 3
"""The fastest run counts: the first may have to compile, and other processes can only slow it down."""

LOAD_AS_THE_HOST_DOES = """
import asyncio, importlib.util, json, sys, tempfile, time
from pathlib import Path
sys.path[:0] = [{devtools!r}]
from relay_host.pack import enter_host
root = Path({root!r})
enter_host(Path({host!r}), Path(tempfile.gettempdir()))
import comfy_api.latest, execution, folder_paths, latent_preview, node_helpers, nodes, server

before = set(sys.modules)
began = time.process_time()
spec = importlib.util.spec_from_file_location("pack_x_under_test", root / "__init__.py")
pack = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

async def schemas():
    extension = await pack.comfy_entrypoint()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

ids = asyncio.run(schemas())
print(json.dumps([time.process_time() - began, ids, sorted(set(sys.modules) - before)]))
"""


def load_once() -> tuple[float, list[str], list[str]]:
    """(seconds, node ids, newly imported modules)"""
    code = LOAD_AS_THE_HOST_DOES.format(devtools=str(ROOT / "devtools"), root=str(ROOT), host=str(get_host()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=get_host())
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_the_pack_loads_fast_and_loads_nothing_heavy() -> None:
    seconds = []
    for _ in range(ATTEMPTS):
        took, ids, modules = load_once()
        seconds.append(took)
        assert ids
        assert {module.split(".")[0] for module in modules} & HEAVY == set()
        if took < ALLOWED_SECONDS:
            return
    raise AssertionError(f"the pack took {seconds} s to load; the limit is {ALLOWED_SECONDS} s")
