"""The options of one call of the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    """Interleaved rounds of each comparison."""
    quick: bool = False
    """SD1.5 only, with few steps."""
    tiny: bool = False
    """Small models instead of the real architectures: checks only that the benchmarks run."""
    gpu: bool = False
    peers: Path | None = None
    """A folder with other packs, each in a folder named for its repository."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def dtype(self) -> str:
        return "float16" if self.gpu else "float32"

    @property
    def run_steps(self) -> int:
        """Denoising steps per run."""
        if self.quick or self.tiny:
            return 4
        return 20 if self.gpu else 4

    @property
    def warm_up(self) -> int:
        return 0 if self.tiny else 1
