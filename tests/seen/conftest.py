"""Pictures that the trained models paint through the graph, on a server of their own."""

from collections.abc import Iterator

import pytest

from relay_dev.model_folders import SmallModels
from relay_dev.server import HostServer


@pytest.fixture(scope="session")
def server(models: SmallModels) -> Iterator[HostServer]:
    with HostServer(models=models.models, environment=models.environment()) as running:
        yield running
