"""Three layers of tests: no_host (the pack's lower layers alone), in_host (inside the host's process), in_server (a real server
and its real page). In all of them the pack is the package `diffusers_relay`:

    from diffusers_relay.pipelines.latent_space import ...
"""

import os
from pathlib import Path

import pytest
from relay_dev.model_folders import SmallModels, small_models
from relay_dev.pack import prepare_pack
from relay_dev.paths import WORK

pytest_plugins = ["relay_dev.no_skips"]

# Before torch is loaded. Two processes with one thread each are faster on small models than one with two.
os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(WORK / "hf-home")})

prepare_pack()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs in one process where there are several: all that share the server; otherwise, a file."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            group = "server" if "in_server" in item.path.parts else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def models() -> SmallModels:
    """The small models: `models.named["sd15"]` is a diffusers folder."""
    return small_models()


@pytest.fixture(scope="session")
def example_picture() -> Path:
    """A picture that every host has in its input folder."""
    from relay_dev.host import get_host

    return get_host() / "input" / "example.png"
