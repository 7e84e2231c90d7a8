"""Layers of tests: no_host (only the pack's lower layers), in_host (inside the host's process), in_server (a real server and its real
page), seen (pictures that trained models paint in a real server, judged). In all of them the pack is the package `diffusers_relay`:

    from diffusers_relay.pipelines.latents.latent_space import ...
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from relay_dev.model_folders import SmallModels, small_models
from relay_host.pack import prepare_pack
from relay_host.paths import ARTIFACTS, WORK
from relay_host.server import HostServer
from support.pages import SERVER_ARGUMENTS

pytest_plugins = ["relay_dev.no_skips"]

# Set before torch is loaded. On small models, two processes with one thread each are faster than one with two.
os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(WORK / "hf-home")})

prepare_pack()


ON_THE_PAGE = tuple(
    f"tests/in_server/test_{name}.py"
    for name in (
        *("page", "boxes", "blueprints", "made_again", "help_pages", "notes", "page_in_other_languages"),
        *("batch_conversion", "page_script"),
    )
)
"""These share one browser, so they run sequentially in one process: see tests/in_server/conftest.py."""
LONGEST_FIRST = (
    "tests/in_server/test_any_workflow.py",
    "tests/in_server/test_stopped.py",
    "tests/batch/test_run.py",
    "tests/seen/test_prompts.py",
    "tests/seen/test_pictures.py",
    *ON_THE_PAGE,
    "tests/in_server/test_long_runs.py",
    "tests/in_server/",
)
"""These files run first, in this order, so that no long file is left for the end."""


class Scheduling(LoadFileScheduling):
    """Runs each file in one process, and files that share something in the same process; a free process takes the next file."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "on the page" if file in ON_THE_PAGE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    config.option.loadscopereorder = False  # the order is the one below
    return Scheduling(config, log)


def place(item: pytest.Item) -> int:
    """The position of an item's file in LONGEST_FIRST."""
    places = [number for number, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)]
    return min(places, default=len(LONGEST_FIRST))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=place)


@pytest.fixture(scope="session")
def models() -> SmallModels:
    """The small models: `models.named["sd15"]` is a diffusers folder."""
    return small_models()


@pytest.fixture(scope="session")
def server(models: SmallModels) -> Iterator[HostServer]:
    """One server for all tests in a process, with the small models in its folders and hub cache."""
    environment = models.environment()
    with HostServer(models=models.models, environment=environment, arguments=SERVER_ARGUMENTS) as running:
        yield running
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        shutil.copyfile(running.log_path, ARTIFACTS / f"server-{worker}.log")


@pytest.fixture(scope="session")
def example_picture() -> Path:
    """A picture in every host's input folder."""
    from relay_host.comfyui import get_host

    return get_host() / "input" / "example.png"
