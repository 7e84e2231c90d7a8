"""What ComfyUI's registry shows of the pack: its pictures, its version, and an archive with the right files."""

import re

import numpy as np
import pytest
from PIL import Image

from relay_dev import registry_archive, registry_pictures
from relay_host.paths import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
RAW = "https://raw.githubusercontent.com/diffusers-relay/diffusers-relay/main/"
VALID = "Validating node configuration...\nRunning security checks...\n✓ All validation checks passed successfully\n"


def setting(name: str) -> str:
    """The value of a line of pyproject.toml."""
    (value,) = re.findall(rf'^{name} = "(.*)"$', PROJECT, re.MULTILINE)
    return str(value)


def test_the_icon_and_the_banner_have_the_sizes_that_the_registry_takes() -> None:
    icon, banner = Image.open(registry_pictures.ICON), Image.open(registry_pictures.BANNER)
    assert icon.width == icon.height <= 400
    assert banner.width * 9 == banner.height * 21
    for file, name in ((registry_pictures.ICON, "Icon"), (registry_pictures.BANNER, "Banner")):
        assert setting(name) == RAW + file.relative_to(ROOT).as_posix()
        assert file.stat().st_size < 300_000


def test_the_icon_is_what_its_script_draws() -> None:
    """The grains of noise, the sun and the wire are where the script puts them; a new Pillow may smooth edges differently."""
    drawn, kept = registry_pictures.draw_icon(), Image.open(registry_pictures.ICON)
    apart = np.abs(np.asarray(drawn, dtype=int) - np.asarray(kept.convert("RGBA"), dtype=int))
    assert apart.mean() < 1
    shown = np.asarray(kept)
    assert tuple(shown[98, 291, :3]) == registry_pictures.SUN
    assert shown[0, 0, 3] == 0 and shown[200, 200, 3] == 255


def test_there_is_one_version_and_the_changelog_has_it() -> None:
    (own,) = re.findall(r'^__version__ = "(.*)"$', (ROOT / "__init__.py").read_text("utf-8"), re.MULTILINE)
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert setting("version") == own == released[0]


def test_the_registry_knows_systems_cards_and_python_versions() -> None:
    classifiers = re.findall(r'^    "(\w[^"]* :: [^"]*)",$', PROJECT, re.MULTILINE)
    starts = ("Operating System :: ", "Environment :: GPU :: ", "Programming Language :: Python :: 3.10")
    assert all(any(one.startswith(start) for one in classifiers) for start in starts)
    assert re.fullmatch(r">=\d+\.\d+\.\d+", setting("requires-comfyui"))


def test_an_archive_without_a_file_or_with_one_too_many_is_refused() -> None:
    files = {"nodes/loaders.py", "web/docs/RelayLoadModel.md", "docs/icon.png", "tests/conftest.py", ".comfyignore"}
    published = {"nodes/loaders.py", "web/docs/RelayLoadModel.md"}
    assert registry_archive.faults(published, files) == []
    (missing,) = registry_archive.faults({"nodes/loaders.py"}, files)
    assert missing.startswith("web/docs/RelayLoadModel.md is missing from the archive")
    (extra,) = registry_archive.faults(published | {"tests/conftest.py"}, files)
    assert extra.startswith("tests/conftest.py does not belong into the archive")


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (1, VALID),
        (0, "Validating node configuration...\n"),
        (0, f"Warning: Invalid Operating System classifier found. No OS information will be populated.\n{VALID}"),
        (0, "Security warnings found:\nnodes/a.py:1:1: S307 eval\n"),
    ],
)
def test_what_comfy_node_validate_complains_of_is_an_error(code: int, output: str) -> None:
    assert registry_archive.complaints(0, VALID) == []
    assert registry_archive.complaints(code, output)[-1] == output.strip()
