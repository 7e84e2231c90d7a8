"""Whether this server may fetch pictures of the internet."""

from __future__ import annotations

import ipaddress
import os

from comfy.cli_args import args

from ...pipelines.base.errors import RelayError

ALLOW_URL = "RELAY_ALLOW_URL"


def check_urls_allowed() -> None:
    """Whoever can reach this server could have it fetch things, so the user has to say that they may.

    Raises:
        RelayError: the server listens to other machines, and RELAY_ALLOW_URL is not 1.
    """
    if os.environ.get(ALLOW_URL) == "1" or all(_is_loopback(host) for host in args.listen.split(",")):
        return
    raise RelayError(
        f"url: this ComfyUI can be reached from other machines (--listen {args.listen}), so pictures of the internet are not fetched. "
        f"Set the environment variable {ALLOW_URL}=1 and restart to allow it, or download the picture and use Load Image."
    )


def _is_loopback(host: str) -> bool:
    host = host.strip().strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
