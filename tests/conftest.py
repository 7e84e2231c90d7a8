"""Layers of tests: no_host (the pack's lower layers alone), in_host (inside the host's process), in_server (a real server and its
real page), seen (what trained models paint through a real server, judged). In all of them the pack is the package `diffusers_relay`:

    from diffusers_relay.pipelines.latent_space import ...
"""

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from relay_dev.model_folders import SmallModels, small_models
from relay_dev.pack import prepare_pack
from relay_dev.paths import WORK

pytest_plugins = ["relay_dev.no_skips"]

# Before torch is loaded. Two processes with one thread each are faster on small models than one with two.
os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(WORK / "hf-home")})

prepare_pack()


class OneServer(LoadScopeScheduling):
    """With several processes, all that uses one server runs in one of them, and otherwise each file in one."""

    def _split_scope(self, nodeid: str) -> str:
        return server_of(nodeid) or nodeid.split("::")[0]


def server_of(nodeid: str) -> str | None:
    """The folder of tests that a server is for."""
    return next((name for name in ("in_server", "seen") if name in nodeid.split("::")[0].split("/")), None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneServer:
    config.option.loadscopereorder = False  # the order is the one below
    return OneServer(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: server_of(item.nodeid) is None)  # what takes longest begins first


@pytest.fixture(scope="session")
def models() -> SmallModels:
    """The small models: `models.named["sd15"]` is a diffusers folder."""
    return small_models()


@pytest.fixture(scope="session")
def example_picture() -> Path:
    """A picture that every host has in its input folder."""
    from relay_dev.host import get_host

    return get_host() / "input" / "example.png"
