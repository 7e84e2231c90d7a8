"""Tests on a real server, and on its real page in headless Chromium."""

import shutil
from collections.abc import Iterator

import pytest

from relay_dev.model_folders import SmallModels
from relay_dev.page import HostPage, open_page
from relay_dev.paths import ARTIFACTS
from relay_dev.server import HostServer


@pytest.fixture(scope="session")
def server(models: SmallModels) -> Iterator[HostServer]:
    """One server for all tests, with the small models in its folders and in its hub cache."""
    # DEBUG: the pack says there which stage uses which modules, which tests count.
    arguments = ("--preview-method", "latent2rgb", "--verbose", "DEBUG")
    with HostServer(models=models.models, environment=models.environment(), arguments=arguments) as running:
        yield running
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(running.log_path, ARTIFACTS / "server.log")


@pytest.fixture(scope="module")
def page(server: HostServer) -> Iterator[HostPage]:
    """The server's page. One a module and not one a session: while it is open, asyncio.run does not work in this process."""
    with open_page(server.url) as opened:
        yield opened
