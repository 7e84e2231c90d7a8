"""Downloads a URL from the public internet, and never contacts this machine or its local network.

Each request resolves the host's name once, all its addresses must be public, and the connection goes to an address that was
checked. So neither a redirect nor a name whose addresses change can lead into the local network.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..base.watched import Transfer, run_watched
from .url_address import Address, Internet, check_url

if TYPE_CHECKING:
    import torch

MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
BLOCK_BYTES = 1 << 16
HEADERS = {"User-Agent": "diffusers-relay", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True)
class Limits:
    """Limits for one download."""

    bytes: int = 64 << 20
    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    """Time without receiving a byte."""
    total_seconds: float = 120.0


LIMITS = Limits()


def fetch(url: str, monitor: Monitor, *, limits: Limits = LIMITS, network: Internet | None = None) -> bytes:
    """The body of the response to a GET of ``url``, after at most five redirects. Progress is in bytes if the server sends the size.

    Args:
        network: for tests; workflows can't set it.

    Raises:
        RelayError: :func:`check_url` raises it; an address, also of a redirect, is not public; or there is no answer, a
            status other than 200, too much data or a timeout. The messages never contain query strings.
        any exception of ``monitor``, unchanged and at once.
    """
    network = network or Internet()
    job = _Job(check_url(url, network), limits, network)
    watch = _Deadline(monitor, job)
    try:
        run_watched(job.open, watch)
        return run_watched(job.read, watch, job.expected or 0)
    finally:
        job.close()


class _Deadline:
    """A monitor that also stops the download after ``total_seconds``, whatever the thread waits for."""

    def __init__(self, monitor: Monitor, job: _Job) -> None:
        self._monitor, self._job = monitor, job
        self._end = time.monotonic() + job.limits.total_seconds

    def check(self) -> None:
        self._monitor.check()
        if time.monotonic() > self._end:
            raise RelayError(
                f"url: {self._job.address} took more than {self._job.limits.total_seconds:g} s. Try again later, or download the image yourself."
            )

    def expect_latents(self) -> bool:
        return self._monitor.expect_latents()

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self._monitor.progress(done, total, latents)

    def say(self, message: str) -> None:
        self._monitor.say(message)


class _Job:
    """One download. Its methods run in the downloading thread, except :meth:`close`, which runs in the watching thread."""

    def __init__(self, address: Address, limits: Limits, network: Internet) -> None:
        self.address, self.limits, self.network = address, limits, network
        self.expected: int | None = None
        """Size in bytes, if the server sent it."""
        self._response: Any = None
        self._socket: Any = None

    def open(self, transfer: Transfer) -> None:
        for _ in range(MOST_REDIRECTS + 1):
            transfer.check()
            response = self._ask(transfer)
            if response.status not in REDIRECTS:
                break
            self.close()
            target = response.headers.get("Location")
            if not target:
                raise RelayError(f"url: {self.address} redirects without an address. Use another URL.")
            # as in a browser, non-ASCII characters are read as UTF-8
            target = target.encode("latin-1", "replace").decode("utf-8", "replace")
            self.address = check_url(_joined(self.address, target), self.network)
        else:
            raise RelayError(
                f"url: more than {MOST_REDIRECTS} redirects, the last one to {self.address}. Use the image's final address."
            )
        if response.status != 200:
            raise RelayError(
                f"url: {self.address} answered with status {response.status}. Open the address in a browser to see why."
            )
        length = response.headers.get("Content-Length", "")
        self.expected = int(length) if length.isascii() and length.isdigit() else None
        if self.expected is not None and self.expected > self.limits.bytes:
            raise self._too_large()
        self._response = response

    def read(self, transfer: Transfer) -> bytes:
        content = bytearray()
        try:
            while block := self._response.read1(BLOCK_BYTES):
                transfer.check()
                content += block
                transfer.bytes_done = min(len(content), self.expected or len(content))
                if len(content) > self.limits.bytes:
                    raise self._too_large()
        except _network_errors() as error:
            raise self._failed(error) from None
        return bytes(content)

    def close(self) -> None:
        """Closes the connection; also wakes a thread that waits for it."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):  # the server may have closed it already
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _ask(self, transfer: Transfer) -> Any:
        """The response to one request, before its body is read."""
        import urllib3

        errors: list[Exception] = []
        for ip in self._checked_addresses():
            transfer.check()
            connection = self._connection(ip)
            try:
                connection.connect()
                self._socket = connection.sock
                connection.timeout = self.limits.read_seconds
                connection.sock.settimeout(self.limits.read_seconds)
                headers = {**HEADERS, "Host": self.address.host_header}
                connection.request(
                    "GET", self.address.target, headers=headers, preload_content=False, decode_content=False
                )
                return connection.getresponse()
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                errors.append(error)  # the next address may answer
            except _network_errors() as error:
                raise self._failed(error) from None
        raise self._failed(errors[-1]) from None

    def _checked_addresses(self) -> list[str]:
        host = self.address.host
        try:
            found = self.network.resolve(host, self.address.port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise RelayError(f"url: host {host} was not found. Check its spelling and the network connection.")
        if not all(self.network.allows(ip) for ip in found):
            raise RelayError(
                f"url: {host} has an address on this machine or a local network, and only public addresses are allowed. "
                "For a file on this machine, use Load Image."
            )
        return found

    def _connection(self, ip: str) -> Any:
        from urllib3.connection import HTTPConnection, HTTPSConnection

        address, wait = self.address, self.limits.connect_seconds
        if address.scheme == "http":
            return HTTPConnection(ip, address.port, timeout=wait)
        import certifi

        return HTTPSConnection(
            ip,
            address.port,
            timeout=wait,
            server_hostname=address.host,
            cert_reqs="CERT_REQUIRED",
            ca_certs=self.network.ca_certificates or certifi.where(),
        )

    def _too_large(self) -> RelayError:
        return RelayError(
            f"url: {self.address} sends more than the allowed {self.limits.bytes / (1 << 20):g} MiB. Use a smaller image."
        )

    def _failed(self, error: BaseException) -> RelayError:
        import urllib3

        if isinstance(error, (TimeoutError, urllib3.exceptions.TimeoutError)):
            why = f"it did not answer within {self.limits.read_seconds:g} s"
        elif "certificate" in str(error).lower():
            why = "its certificate is not valid for this host"
        else:
            why = type(error).__name__
        return RelayError(f"url: the connection to {self.address} failed: {why}. Try the address in a browser.")


def _joined(address: Address, target: str) -> str:
    base = f"{address.scheme}://{address.host_header}{address.target}"
    try:
        return urljoin(base, target)
    except ValueError:
        raise RelayError(f"url: {address} redirects to an invalid address. Use another URL.") from None


def _network_errors() -> tuple[type[Exception], ...]:
    from http.client import HTTPException

    import urllib3

    return (OSError, urllib3.exceptions.HTTPError, HTTPException)
