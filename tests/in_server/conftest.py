"""Tests on a real server, and on its real page in headless Chromium."""

from collections.abc import Iterator

import pytest

from relay_host.page import HostPage, open_page
from relay_host.server import HostServer


@pytest.fixture(scope="module")
def page(server: HostServer) -> Iterator[HostPage]:
    """The server's page. One a module and not one a session: while it is open, asyncio.run does not work in this process."""
    with open_page(server.url) as opened:
        yield opened
