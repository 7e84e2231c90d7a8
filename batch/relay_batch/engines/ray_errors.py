"""Ray's errors in a line or two."""

from __future__ import annotations

NODE_DIED = "its node has died"
TELLING = ("The actor died because", "The actor is dead because", "the actor's node", "Failed to set up runtime env")
"""The beginnings of the lines that say why. Other lines are ids."""


def reason(error: Exception) -> str:
    """Of an error that a worker has raised, its own words."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return str(cause) or type(cause).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if getattr(error, "actor_init_failed", False):
        return lines[-1]
    said = [line.removesuffix(".") for line in lines if line.startswith(TELLING)]
    return "; ".join(said) or (lines[0].removesuffix(".") if lines else type(error).__name__)


def is_of_the_machine(error: Exception) -> bool:
    """Whether the machine is gone, so that nothing is said about the worker."""
    return NODE_DIED in str(error)
