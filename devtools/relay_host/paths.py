"""Paths of the pack, the work folder and the artifacts."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The pack: the folder that goes into ComfyUI/custom_nodes."""

WORK = Path(os.environ.get("RELAY_WORK") or ROOT / ".relay").resolve()
"""Everything that the commands create: the host, small models, pictures, logs. It can be deleted at any time."""

ARTIFACTS = WORK / "artifacts"
"""Output for people to look at: pictures, screenshots, logs."""

PACK_FOLDER = "diffusers-relay"
"""The pack's folder under the host's custom_nodes."""
