"""Decides which URLs and IP addresses may be contacted: only public ones."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from ..base.errors import RelayError

PORTS = {"http": 80, "https": 443}
MOST_CHARACTERS = 4096
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix through which IPv6-only networks reach IPv4 addresses."""
NOT_PUBLIC_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        "100.64.0.0/10",  # shared by providers and their customers; Alibaba's metadata service
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata service
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        *("224.0.0.0/4", "240.0.0.0/4"),  # multicast, reserved, broadcast
        # cloud services: public by the registry, but answered by the platform that the machine runs on
        "168.63.129.16/32",  # Azure
        *("161.26.0.0/16", "166.8.0.0/14"),  # IBM
    )
)
"""From https://www.iana.org/assignments/iana-ipv4-special-registry, because Python's own table differs between versions."""
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
"""All global unicast addresses; loopback, local, private and multicast addresses are outside it."""
NOT_PUBLIC_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols, including Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3ffe::/16",  # returned to the IANA
        "3fff::/20",  # documentation
    )
)
"""From https://www.iana.org/assignments/iana-ipv6-special-registry, the part inside :data:`PUBLIC_IPV6`."""


class Internet:
    """Resolves names and tells which addresses and ports may be contacted."""

    ca_certificates: str | None = None
    """Path of a file; certifi's if None."""

    def resolve(self, host: str, port: int) -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def allows(self, address: str) -> bool:
        return is_public(address)

    def allows_port(self, port: int) -> bool:
        return port in PORTS.values()


def is_public(address: str) -> bool:
    """Whether the address is not local, private or reserved. An IPv4 address inside an IPv6 address is checked as IPv4."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in NOT_PUBLIC_IPV4)
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip in PUBLIC_IPV6 and not any(ip in network for network in NOT_PUBLIC_IPV6)


@dataclass(frozen=True)
class Address:
    """A checked URL whose host has not been resolved yet."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query, as sent to the server."""

    def __str__(self) -> str:
        """For messages: without any part that could be secret."""
        return f"{self.scheme}://{self.host}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, network: Internet | None = None) -> Address:
    """Parses and checks a URL without using the network.

    Raises:
        RelayError: the URL is not http or https, has no host, contains a name or password, or has a port other than 80 and 443.
    """
    url = url.strip()
    if not url:
        raise RelayError("url: it is empty. Enter the address of an image, https://...")
    if len(url) > MOST_CHARACTERS:
        raise RelayError(
            f"url: it has {len(url)} characters, but only {MOST_CHARACTERS} are allowed. Use a shorter address."
        )
    if any(sign.isspace() or not sign.isprintable() or sign == "\\" for sign in url):
        raise RelayError("url: it contains a space, a backslash or a control character. Write %20 for a space.")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        if ":" not in host:
            host = host.encode("idna").decode("ascii").rstrip(".")
    except ValueError:  # includes UnicodeError; its text is not shown, because it may contain the whole URL
        raise RelayError("url: its host or port can't be read. Expected https://host/path.") from None
    if scheme not in PORTS:
        raise RelayError(
            f"url: only https: and http: addresses can be loaded, not {scheme + ':' if scheme and len(scheme) < 16 else 'this one'}. "
            "For a file on this machine, use Load Image."
        )
    if "@" in parts.netloc:
        raise RelayError(
            "url: it has a name or password before the host, which would be saved in the workflow. Remove them."
        )
    if not host:
        raise RelayError("url: it has no host. Expected https://host/path.")
    port = PORTS[scheme] if port is None else port
    if not (network or Internet()).allows_port(port):
        raise RelayError(f"url: port {port} of {host} is not allowed. Only ports 80 and 443 are.")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(parts.query, safe='/?%:@!$&()*+,;=~-._[]')}" if parts.query else ""
    )
    return Address(scheme, host, port, target)
