"""Tests on a real server and on its real page in headless Chromium."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay_dev.model_folders import SmallModels
from relay_host.comfyui import named_host
from relay_host.front_end import NODES_2_SETTINGS, newest_front_end
from relay_host.page import HostPage, open_page, open_page_beside
from relay_host.server import HostServer
from support.pages import FRAMES_PER_SECOND, HOSTS_OWN, NODES_2, SERVER_ARGUMENTS
from support.versions import WITH_SD3_BLOCKS

collect_ignore = [] if WITH_SD3_BLOCKS else ["test_stable_diffusion_3.py"]


class OpenPages:
    """The open pages, and their exit stack."""

    named: dict[str, HostPage] = {}
    closing = ExitStack()


@pytest.fixture(scope="session")
def nodes_2_server(models: SmallModels) -> Iterator[HostServer]:
    """A server whose page is the newest one, with Nodes 2.0. A host that the user names keeps its own page."""
    own = named_host() is not None
    arguments = [*SERVER_ARGUMENTS, *([] if own else ["--front-end-root", str(newest_front_end())])]
    server = HostServer(
        models=models.models, environment=models.environment(), arguments=arguments, settings=NODES_2_SETTINGS
    )
    with server as running:
        yield running


@pytest.fixture(scope="module", params=[HOSTS_OWN, NODES_2])
def page_name(request: pytest.FixtureRequest) -> str:
    """Every test of a page runs on both."""
    return request.param


@pytest.fixture(scope="module")
def page_server(request: pytest.FixtureRequest, page_name: str) -> HostServer:
    """The server of the page."""
    return request.getfixturevalue("server" if page_name == HOSTS_OWN else "nodes_2_server")


@pytest.fixture(scope="module")
def page(page_server: HostServer) -> HostPage:
    """The server's page: all pages are in one browser, which consecutive modules share."""
    opened = OpenPages.named.get(page_server.url)
    if opened is None:
        others = list(OpenPages.named.values())
        opening = open_page_beside(others[0], page_server.url) if others else open_page(page_server.url)
        opened = OpenPages.named[page_server.url] = OpenPages.closing.enter_context(opening)
    else:
        opened.open()  # reload, so nothing from the previous module remains
        opened.errors.clear()
    opened.draw_at_most(FRAMES_PER_SECOND)
    return opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Closes the page before a test that doesn't use it: while it is open, asyncio.run doesn't work in this process."""
    yield  # the fixtures of a module may still use the page
    if nextitem is None or (nextitem.path != item.path and not uses_the_page(nextitem)):
        OpenPages.named.clear()
        OpenPages.closing.close()


def uses_the_page(item: pytest.Item) -> bool:
    """Whether any test in the item's module uses the page."""
    return any("page" in getattr(other, "fixturenames", ()) for other in item.session.items if other.path == item.path)
