"""What one call of the command asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    """Interleaved rounds of each comparison."""
    quick: bool = False
    """SD1.5 only, and few steps."""
    tiny: bool = False
    """Small models in place of the real architectures: shows that the benchmarks run, and nothing else."""
    gpu: bool = False
    peers: Path | None = None
    """A folder with other packs, each in a folder of its repository's name."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def dtype(self) -> str:
        return "float16" if self.gpu else "float32"

    @property
    def run_steps(self) -> int:
        """Denoising steps that a run does."""
        if self.quick or self.tiny:
            return 4
        return 20 if self.gpu else 4

    @property
    def warm_up(self) -> int:
        return 0 if self.tiny else 1
