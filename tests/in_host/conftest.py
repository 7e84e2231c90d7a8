"""Tests in the host's process: its modules can be imported, and the pack is loaded as the host does."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relay_host.comfyui import get_host
from relay_host.pack import enter_host, load_pack
from relay_host.paths import WORK
from support.small_card import SmallCard

WORK.mkdir(parents=True, exist_ok=True)
BASE = Path(tempfile.mkdtemp(prefix="in-host-", dir=WORK))
atexit.register(shutil.rmtree, BASE, ignore_errors=True)

enter_host(get_host(), BASE)
load_pack()


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], SmallCard]:
    return lambda size: SmallCard(size, monkeypatch)
