"""Tests on a real server, and on its real page in headless Chromium."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay_host.page import HostPage, open_page
from relay_host.server import HostServer

FRAMES_PER_SECOND = 4
"""Chromium draws the page without a GPU: at its own rate it takes as much of the CPU as the models do."""


class OpenPage:
    """The page while it is open, and what closes it."""

    page: HostPage | None = None
    closing = ExitStack()


@pytest.fixture(scope="module")
def page(server: HostServer) -> HostPage:
    """The server's page: one browser for all modules that follow one another and use it."""
    opened = OpenPage.page
    if opened is None:
        opened = OpenPage.page = OpenPage.closing.enter_context(open_page(server.url))
    else:
        opened.open()  # anew: nothing of the module before is on it
        opened.errors.clear()
    opened.draw_at_most(FRAMES_PER_SECOND)
    return opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Closes the page before a test that does not follow on it: while it is open, asyncio.run does not work in this process."""
    if nextitem is None or (nextitem.path != item.path and not uses_the_page(nextitem)):
        OpenPage.page = None
        OpenPage.closing.close()
    return (yield)


def uses_the_page(item: pytest.Item) -> bool:
    """Whether any test of the item's module is on the page."""
    return any("page" in getattr(other, "fixturenames", ()) for other in item.session.items if other.path == item.path)
