"""Finds a Chromium to show the host's page in, or installs one.

The order: RELAY_CHROMIUM, Playwright's own, one from the system, and finally a new installation: Debian's package when run on
Debian as root, otherwise Playwright's download.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "microsoft-edge")
PLACES = {
    "Darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "Windows": (
        r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Google\Chrome\Application\chrome.exe",
        r"%LocalAppData%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe",
    ),
}


def find_browser() -> Path | None:
    """The path of a Chromium executable, or None if there is none."""
    named = os.environ.get("RELAY_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise FileNotFoundError(f"RELAY_CHROMIUM is {named}, but there is no such file.")
        return Path(named)
    own = _playwright_browser()
    if own.is_file():
        return own
    for name in NAMES:
        found = shutil.which(name)
        if found and not Path(found).resolve().name.startswith("snap"):
            return Path(found)
    for place in PLACES.get(platform.system(), ()):
        path = Path(os.path.expandvars(place))
        if path.is_file():
            return path
    return None


def get_browser() -> Path:
    """The path of a Chromium executable; installs one if there is none."""
    found = find_browser()
    if found is None:
        print("Installing a Chromium for the page's tests", file=sys.stderr, flush=True)
        if not (_is_debian_root() and _install_debian()):
            subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
        found = find_browser()
    if found is None:
        raise FileNotFoundError(
            "No Chromium was found and none could be installed. Install Chromium or Chrome, "
            "or set the environment variable RELAY_CHROMIUM to the path of its executable."
        )
    return found


def _playwright_browser() -> Path:
    # Runs in a separate process: Playwright's sync API doesn't start while an event loop is running.
    code = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"Playwright does not start:\n{done.stderr}")
    return Path(done.stdout.strip())


def _is_debian_root() -> bool:
    # Not Ubuntu: its chromium package only installs a snap.
    release = Path("/etc/os-release")
    is_debian = release.is_file() and "ID=debian" in release.read_text("utf-8").split()
    return is_debian and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install_debian() -> bool:
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"])
    return all(subprocess.call(command, env=environment) == 0 for command in commands)


if __name__ == "__main__":
    print(get_browser())
