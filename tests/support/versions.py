"""Which tests the installed diffusers can run."""

import diffusers
from packaging.version import Version

WITH_SD3_BLOCKS = Version(diffusers.__version__) >= Version("0.39")
"""Older versions have no modular blocks of Stable Diffusion 3: test_families.py has what happens then."""
