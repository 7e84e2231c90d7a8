"""Which addresses of the internet may be asked, and by what a URL is known to be one of them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from ..base.errors import RelayError

PORTS = {"http": 80, "https": 443}
MOST_CHARACTERS = 4096
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""How a network with IPv6 alone reaches IPv4."""
NOT_PUBLIC_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        "100.64.0.0/10",  # between a provider and its customers; Alibaba's metadata
        "192.0.0.0/24",  # the IETF's protocols; Oracle's metadata
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        "192.88.99.0/24",  # the relays of 6to4
        "198.18.0.0/15",  # benchmarks
        *("224.0.0.0/4", "240.0.0.0/4"),  # groups, reserved, broadcast
        # of clouds: public by the registry, and answered by the machine's own platform
        "168.63.129.16/32",  # Azure
        *("161.26.0.0/16", "166.8.0.0/14"),  # IBM
    )
)
"""https://www.iana.org/assignments/iana-ipv4-special-registry, written out: Python's own table is another in each version."""
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out; loopback, local, private and multicast addresses lie elsewhere."""
NOT_PUBLIC_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # the IETF's protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3ffe::/16",  # given back
        "3fff::/20",  # documentation
    )
)
"""https://www.iana.org/assignments/iana-ipv6-special-registry, as far as it lies in :data:`PUBLIC_IPV6`."""


class Internet:
    """Names, addresses and ports that may be asked."""

    ca_certificates: str | None = None
    """A file; None: certifi's."""

    def resolve(self, host: str, port: int) -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def allows(self, address: str) -> bool:
        return is_public(address)

    def allows_port(self, port: int) -> bool:
        return port in PORTS.values()


def is_public(address: str) -> bool:
    """Not of this machine, of a local network, or of any other special use. What counts is the IPv4 address inside an IPv6 one."""
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
    """A URL that has been looked at, but not yet resolved."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query, as they are sent."""

    def __str__(self) -> str:
        """For errors: nothing that could be a secret."""
        return f"{self.scheme}://{self.host}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, network: Internet | None = None) -> Address:
    """What can be said with no network.

    Raises:
        RelayError: not http or https, no host, a name and password in it, or another port than 80 and 443.
    """
    url = url.strip()
    if not url:
        raise RelayError("url: it is empty. Give the address of a picture, https://...")
    if len(url) > MOST_CHARACTERS:
        raise RelayError(f"url: it has {len(url)} characters; {MOST_CHARACTERS} are allowed. Use a shorter address.")
    if any(sign.isspace() or not sign.isprintable() or sign == "\\" for sign in url):
        raise RelayError("url: it has a space, a backslash or a control character in it. Write %20 for a space.")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        if ":" not in host:
            host = host.encode("idna").decode("ascii").rstrip(".")
    except ValueError:  # UnicodeError is one; the text of neither is shown, it may hold the whole URL
        raise RelayError("url: its host or port can't be read. Expected https://host/path.") from None
    if scheme not in PORTS:
        raise RelayError(
            f"url: {scheme + ': ' if scheme and len(scheme) < 16 else 'this '}is not fetched, only https: and http: are. "
            "For a file of this machine use Load Image."
        )
    if "@" in parts.netloc:
        raise RelayError(
            "url: it has a name or password before the host. They would be saved in the workflow: take them out."
        )
    if not host:
        raise RelayError("url: it names no host. Expected https://host/path.")
    port = PORTS[scheme] if port is None else port
    if not (network or Internet()).allows_port(port):
        raise RelayError(f"url: port {port} of {host} is not asked, only the ports 80 and 443 are.")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(parts.query, safe='/?%:@!$&()*+,;=~-._[]')}" if parts.query else ""
    )
    return Address(scheme, host, port, target)
