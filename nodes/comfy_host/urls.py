"""Whether this server may fetch pictures from the internet."""

from __future__ import annotations

import ipaddress
import os

from comfy.cli_args import args

from ...pipelines.base.errors import RelayError

ALLOW_URL = "RELAY_ALLOW_URL"


def check_urls_allowed() -> None:
    """Anyone who can reach this server could make it fetch pictures, so the user has to allow that.

    Raises:
        RelayError: other machines can reach the server, and RELAY_ALLOW_URL is not 1.
    """
    if os.environ.get(ALLOW_URL) == "1" or all(_is_loopback(host) for host in args.listen.split(",")):
        return
    raise RelayError(
        f"url: this ComfyUI can be reached from other machines (--listen {args.listen}), so it does not fetch pictures from the internet. "
        f"Set the environment variable {ALLOW_URL}=1 and restart to allow it, or download the picture and use Load Image."
    )


def _is_loopback(host: str) -> bool:
    host = host.strip().strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
