"""Tests on a real server and on its real page in headless Chromium."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay_host.page import HostPage, open_page
from relay_host.server import HostServer
from support.versions import WITH_SD3_BLOCKS

collect_ignore = [] if WITH_SD3_BLOCKS else ["test_stable_diffusion_3.py"]

FRAMES_PER_SECOND = 4
"""Chromium draws the page without a GPU: at its default rate, it uses as much CPU as the models."""


class OpenPage:
    """The open page, and its exit stack."""

    page: HostPage | None = None
    closing = ExitStack()


@pytest.fixture(scope="module")
def page(server: HostServer) -> HostPage:
    """The server's page: consecutive modules that use it share one browser."""
    opened = OpenPage.page
    if opened is None:
        opened = OpenPage.page = OpenPage.closing.enter_context(open_page(server.url))
    else:
        opened.open()  # reload, so nothing from the previous module remains
        opened.errors.clear()
    opened.draw_at_most(FRAMES_PER_SECOND)
    return opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Closes the page before a test that doesn't use it: while it is open, asyncio.run doesn't work in this process."""
    if nextitem is None or (nextitem.path != item.path and not uses_the_page(nextitem)):
        OpenPage.page = None
        OpenPage.closing.close()
    return (yield)


def uses_the_page(item: pytest.Item) -> bool:
    """Whether any test in the item's module uses the page."""
    return any("page" in getattr(other, "fixturenames", ()) for other in item.session.items if other.path == item.path)
