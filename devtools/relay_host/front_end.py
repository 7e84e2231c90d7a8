"""The newest page of ComfyUI that the tests know, and its Nodes 2.0: it also runs on the server of an older ComfyUI."""

from __future__ import annotations

from pathlib import Path

from .paths import WORK
from .wheels import Wheel, unpack_once

FRONT_END_VERSION = "1.58.1"
FRONT_END = Wheel(
    f"comfyui-frontend-package=={FRONT_END_VERSION}",
    "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9",
)
NODES_2_SETTINGS = {"Comfy.VueNodes.Enabled": True}
"""The page's setting for Nodes 2.0, which draws the nodes as HTML. Without it, a canvas draws them."""


def newest_front_end() -> Path:
    """The page's folder, for the host's option --front-end-root."""
    return unpack_once(FRONT_END, "comfyui_frontend_package/static", WORK / f"front-end-{FRONT_END_VERSION}")


if __name__ == "__main__":
    print(newest_front_end())
