"""A host that the user names gets an environment of its own, and the locked one stays as it is."""

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from relay_host import comfyui, environment

PROBE = "relay_probe"
CODE = "import importlib.metadata as m, relay_probe, sys; print(m.version('torch'), relay_probe.VALUE, sys.prefix)"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host that asks for torch, which is here, and for a package that is not."""
    wheel = tmp_path / f"{PROBE}-1.0-py3-none-any.whl"
    about = f"{PROBE}-1.0.dist-info"
    files = {
        f"{PROBE}.py": "VALUE = 42\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {PROBE}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in files) + f"{about}/RECORD,,\n")
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text(f"# host\ntorch\n{PROBE} @ {wheel.as_uri()}\n", "utf-8")
    return folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "WORK", tmp_path / "work")
    return tmp_path / "work"


def test_the_hosts_python_has_its_packages_and_the_locked_ones(host: Path, work: Path) -> None:
    python = environment.host_python(host)
    torch, value, prefix = subprocess.check_output([python, "-c", CODE], text=True).split()
    assert (torch, value) == (importlib.metadata.version("torch"), "42")
    assert Path(prefix).is_relative_to(work) and Path(prefix) == environment.host_environment(host)
    assert environment.missing_requirements(host / "requirements.txt", environment.packages()) != []
    made = (Path(prefix) / environment.MADE_FOR).stat().st_mtime_ns
    with (host / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("numpy\n")
    assert environment.host_python(host) == python
    assert (Path(prefix) / environment.MADE_FOR).stat().st_mtime_ns == made, "it is made once"


def test_a_host_that_asks_for_nothing_more_runs_in_this_environment(host: Path, work: Path) -> None:
    (host / "requirements.txt").write_text("torch\nnumpy>=1.25 ; python_version < '3'\n", "utf-8")
    assert environment.host_python(host) == Path(sys.executable)
    assert environment.host_python(comfyui.CARRIED) == Path(sys.executable)
    assert not work.exists()


def test_what_is_missing(tmp_path: Path) -> None:
    numpy = importlib.metadata.version("numpy")
    lines = [f"numpy=={numpy}", f"numpy>{numpy} # newer", "no_such_package", "no_such_too; sys_platform == 'nowhere'"]
    (tmp_path / "requirements.txt").write_text("\n".join(lines), "utf-8")
    places = environment.packages()
    assert environment.missing_requirements(tmp_path / "requirements.txt", places) == [
        f"numpy>{numpy}",
        "no_such_package",
    ]


def test_a_folder_that_is_no_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no main\.py next to a folder named comfy"):
        comfyui.get_host(tmp_path)
