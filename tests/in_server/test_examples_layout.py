"""The page takes each example as it is: no dialog, nothing lost, and what it saves again is what it loaded."""

import json
from pathlib import Path

import pytest

from relay_dev.make_examples import saved_again
from relay_host.page import HostPage
from relay_host.paths import ROOT
from support.workflows import essence

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_second_save_is_the_first(page: HostPage, file: Path) -> None:
    workflow = json.loads(file.read_text("utf-8"))
    assert essence(saved_again(page, workflow)) == essence(workflow)
    assert page.errors == []
