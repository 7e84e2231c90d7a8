"""Ray's long errors become a line that says why."""

from __future__ import annotations

from relay_batch.engines.ray_errors import is_of_the_machine, reason
from relay_batch.errors import HostFailed

NODE_DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayWorker
\tactor_id: 793c435e6af5992f0daff6a801000000
\tnamespace: d201a16d-c342-48d5-acb7-caab6df8cd4f
\tip: 10.77.0.2
The actor died because its node has died. Node Id: e41cea8bd20dcea02dfce28ec657047deb313db8e56aae1a83b29515
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats
The actor never ran - it was cancelled before it started running.."""
"""As Ray 2.60 says it of a machine that was cut off."""
IN_ITS_CREATION = """The actor died because of an error raised in its creation task, ray::RayWorker.__init__() (pid=1, ip=10.77.0.2)
  File "ray_actor.py", line 1, in __init__
ModuleNotFoundError: No module named 'psutil'"""


class RaysError(Exception):
    actor_init_failed = False


def test_a_machine_that_is_gone() -> None:
    error = RaysError(NODE_DIED)
    assert reason(error) == (
        "The actor died because its node has died. Node Id: e41cea8bd20dcea02dfce28ec657047deb313db8e56aae1a83b29515; "
        "the actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
    )
    assert is_of_the_machine(error)


def test_what_the_worker_has_raised() -> None:
    error = RaysError("a long traceback")
    error.cause = HostFailed("ComfyUI did not start: exit code 2")
    assert reason(error) == "ComfyUI did not start: exit code 2"
    assert not is_of_the_machine(error)


def test_an_actor_that_can_not_be_made() -> None:
    error = RaysError(IN_ITS_CREATION)
    error.actor_init_failed = True
    assert reason(error) == "ModuleNotFoundError: No module named 'psutil'"


def test_what_is_not_known() -> None:
    assert (
        reason(RaysError("Get timed out: some object(s) not ready.\nmore")) == "Get timed out: some object(s) not ready"
    )
    assert reason(RaysError("")) == "RaysError"
