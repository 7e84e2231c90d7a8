"""The two pages that the page's tests run on, and the arguments of the servers that they share."""

from pathlib import Path

from relay_host.paths import ARTIFACTS

HOSTS_OWN = "own page"
"""The page that the host's requirements name."""
NODES_2 = "nodes 2.0"
"""The newest page, with Nodes 2.0. On a host that the user names: that host's own page, with Nodes 2.0."""

SERVER_ARGUMENTS = ("--preview-method", "latent2rgb", "--verbose", "DEBUG")
"""At DEBUG, the pack logs which stage uses which modules, and tests count these lines."""

FRAMES_PER_SECOND = 4
"""Chromium draws the page without a GPU: at its default rate, it uses as much CPU as the models."""


def artifacts_of(page_name: str) -> Path:
    """The folder for a page's screenshots."""
    return ARTIFACTS / ("page" if page_name == HOSTS_OWN else "page_nodes_2")
