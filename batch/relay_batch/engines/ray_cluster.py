"""Which Ray cluster a run uses, whether it is safe to, and what one worker takes of it."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BatchError

OWN_RESOURCE = "relay_worker"
"""What a worker takes of a cluster of our own on a machine without a GPU."""
GPU = "GPU"
OPEN_FLAG = "--i-know-this-cluster-has-no-token"
AUTH_MODE = "RAY_AUTH_MODE"
STOPS = ("SIGTERM", "SIGBREAK")


@dataclass(frozen=True)
class Cluster:
    """`address` is HOST:PORT of a cluster's head, or "auto" for the one on this machine; None: our own, on this machine alone."""

    address: str | None = None
    resource: str | None = None
    """What a worker takes one of: "GPU", or a resource of the cluster's own. None: a GPU, if the cluster has any."""
    may_be_open: bool = False
    """Whether the user says that a cluster without a token is meant."""


def check_address(cluster: Cluster, environment: Mapping[str, str] = os.environ) -> None:
    """Raises BatchError for an address that Ray can't keep a long run on, or that lets anybody in."""
    address = cluster.address
    if address is None or address == "auto":
        return
    if "://" in address:
        raise BatchError(
            f"--address {address}: a run needs HOST:PORT, from a machine of the cluster. Ray Client (ray://) loses the run "
            "with its connection. From elsewhere: ray job submit --address http://HOST:8265 -- relay-batch run ..."
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise BatchError(
            f"--address {address}: write HOST:PORT, as `ray start --head` shows it, for example 10.0.0.1:6379."
        )
    refuse_open(cluster, host, environment)


def refuse_open(cluster: Cluster, host: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises BatchError if others can reach `host`, and Ray asks nobody for a token."""
    if cluster.may_be_open or is_loopback(host) or environment.get(AUTH_MODE, "").lower() == "token":
        return
    raise BatchError(
        f"The Ray cluster at {host} is not on this machine alone, and {AUTH_MODE} is not token: whoever reaches it can run any "
        f"code there. Set {AUTH_MODE}=token for all of its machines and for this command (docs/batch.md), or say {OPEN_FLAG}."
    )


def is_loopback(host: str) -> bool:
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def connect(cluster: Cluster, workers: int) -> dict[str, float]:
    """Joins the cluster, or starts our own. What one worker takes of it; BatchError if there is nothing to take, and then it has left."""
    ray = import_ray()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if cluster.address is None:
        options |= {"address": "local", "include_dashboard": False, "resources": {OWN_RESOURCE: workers}}
    else:
        # The nodes run the driver's own version of this package.
        options |= {"address": cluster.address, "runtime_env": {"py_modules": [str(Path(__file__).parents[1])]}}
    try:
        with _own_signals():
            ray.init(**options)
    except Exception as error:  # Ray raises its own errors, OSError, RuntimeError, ValueError
        raise BatchError(
            f"Ray can't be used at {cluster.address or 'this machine'} ({str(error).splitlines()[0]})."
        ) from error
    try:
        if cluster.address is not None:
            refuse_open(cluster, ray.get_runtime_context().gcs_address.rpartition(":")[0])
        return taken_by_a_worker(cluster, ray.cluster_resources())
    except BaseException:
        ray.shutdown()
        raise


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the driver's, which stops a run in order."""
    kept = [(getattr(signal, name), signal.getsignal(getattr(signal, name))) for name in STOPS if hasattr(signal, name)]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)


def taken_by_a_worker(cluster: Cluster, resources: Mapping[str, float]) -> dict[str, float]:
    """{resource: number}. No CPUs: an actor that takes some of a machine's few is not placed while a task holds them."""
    if cluster.resource is not None:
        return {cluster.resource: 1}
    if resources.get(GPU):
        return {GPU: 1}
    if cluster.address is None:
        return {OWN_RESOURCE: 1}
    raise BatchError(
        "No machine of the cluster has a GPU that Ray knows of. Say what a worker takes: --worker-takes GPU, to wait for a machine "
        "that has one, or a resource of your own, with which the machines were started (ray start --resources)."
    )


def import_ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise BatchError(
            "--engine ray needs Ray: pip install diffusers-relay-batch[ray]. It must not go into ComfyUI's environment."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray
