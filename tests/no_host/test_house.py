"""Consistency between the project's own files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay_dev.matrix import requirement_lines
from relay_host.environment import missing_requirements, packages
from relay_host.paths import ROOT

LOCK = (ROOT / "requirements" / "lock.txt").read_text("utf-8")


def test_the_registry_and_pip_are_told_the_same_requirements() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert re.findall(r'"([^"]+)"', found[1]) == requirement_lines(ROOT / "requirements.txt")


@pytest.mark.parametrize(
    ("name", "least"), [("lock.txt", 100), ("registry.txt", 40), ("batch.txt", 40), ("installer.txt", 1)]
)
def test_a_lock_pins_and_hashes_everything_and_names_no_place(name: str, least: int) -> None:
    lock = (ROOT / "requirements" / name).read_text("utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
    assert len(entries) >= least
    assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
    assert "://" not in lock
    assert "index-url" not in lock


def test_the_lock_has_what_the_pack_asks_for() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    assert {re.split(r"[^\w-]", line)[0].lower() for line in requirement_lines(ROOT / "requirements.txt")} <= locked


def test_the_lock_of_the_batch_package_has_what_it_asks_for() -> None:
    lock = (ROOT / "requirements" / "batch.txt").read_text("utf-8")
    project = (ROOT / "batch" / "pyproject.toml").read_text("utf-8")
    wanted = re.findall(
        r"\"([a-z0-9]+)(?:\[[a-z]+\])?>=", project.split("[project.scripts]")[0].split("dependencies =", 1)[1]
    )
    assert {"pillow", "ray", "boto3", "pyarrow"} < set(wanted)
    assert set(wanted) <= set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))


def test_a_named_host_is_told_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "torchaudio\npytest\npytest>=999 # no\nno-such-package-here\nnothing; python_version < '3'\n", "utf-8"
    )
    assert missing_requirements(file, packages()) == ["torchaudio", "pytest>=999", "no-such-package-here"]


@pytest.mark.parametrize(
    "body",
    [
        "import pytest\ndef test_it():\n    pytest.skip('no browser here')\n",
        "import pytest\n@pytest.mark.skip(reason='no browser here')\ndef test_it():\n    pass\n",
        "import pytest\npytest.skip('no browser here', allow_module_level=True)\n",
        "import pytest\n@pytest.fixture\ndef page():\n    pytest.skip('no browser here')\ndef test_it(page):\n    pass\n",
    ],
    ids=["in the test", "by a mark", "the whole file", "in a fixture"],
)
def test_a_skipped_test_is_a_failure(tmp_path: Path, body: str) -> None:
    done = run_pytest(tmp_path, body)
    assert done.returncode != 0
    assert "nothing may be skipped here" in done.stdout
    assert "no browser here" in done.stdout


def test_an_expected_failure_is_none(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\n")
    assert done.returncode == 0, done.stdout


def run_pytest(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_planted.py").write_text(body, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "relay_dev.no_skips",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
    ]
    environment = {"PYTHONPATH": str(ROOT / "devtools")}
    return subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, cwd=folder, env=clean() | environment
    )


def clean() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
