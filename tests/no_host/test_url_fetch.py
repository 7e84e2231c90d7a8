"""Downloads go only to public addresses, whatever a URL, redirect or name server says, and finish in time."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.downloads.url_address import Internet, check_url, is_public
from diffusers_relay.pipelines.downloads.url_fetch import MOST_REDIRECTS, Limits, fetch
from support.picture_server import Door, PictureServer, body, picture_server, redirect
from support.without_host import ListeningMonitor, Stopped

CONTENT = bytes(range(256)) * 1000
SHORT = Limits(bytes=300_000, connect_seconds=2, read_seconds=0.3, total_seconds=1)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        running.answers["/cat"] = body(CONTENT)
        yield running


def get(url: str, door: Internet | None = None, limits: Limits = SHORT) -> bytes:
    return fetch(url, SilentMonitor(), limits=limits, network=door or Door())


def test_the_bytes_arrive_with_progress(server: PictureServer) -> None:
    monitor = ListeningMonitor()
    content = fetch(server.url("/cat?size=1"), monitor, limits=SHORT, network=Door())
    assert content == CONTENT
    assert monitor.steps[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == [(f"pictures.test:{server.port}", "/cat?size=1")]


INSIDE = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "0177.0.0.1", "0", "0.0.0.0"),
    *(
        "localhost",
        "LOCALHOST.",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
    ),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1", "１２７.0.0.1", "127。0。0。1"),
    *("[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]", "[fe80::1]"),
    *(
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a00:1]",
    ),
    *("168.63.129.16", "192.0.0.192", "192.0.0.9", "192.0.0.170", "100.100.100.200", "169.254.0.23", "161.26.0.10"),
    *("166.9.14.1", "192.88.99.1", "198.51.100.1", "203.0.113.1", "255.255.255.254", "100.127.255.255"),
    *("[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]", "[64:ff9b:1::1]", "[fd20:ce::254]", "[fe80::a9fe:a9fe]"),
    *("[100::1]", "[100:0:0:1::1]", "[2001:2::1]", "[2001:20::1]", "[2001:1::1]", "[3fff::1]", "[5f00::1]"),
    *("[2001:10::1]", "[3ffe::1]", "[4000::1]", "[::ffff:0:7f00:1]", "[::2]", "[fe80::1%251]"),
    *("[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::]", "[64:ff9b:1::808:808]"),
]


@pytest.mark.parametrize("host", INSIDE)
def test_an_inside_address_is_refused_in_every_spelling(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", no_connection)
    monkeypatch.setattr(socket.socket, "connect", no_connection)
    with pytest.raises(RelayError, match=r"url: .*(local network|no host)"):
        fetch(f"http://{host}/cat", SilentMonitor())


def no_connection(*_: object, **__: object) -> None:
    raise AssertionError("it connects")


EDGES = (
    *("1.0.0.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
    *("168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
    *("223.255.255.255", "2001:200::1", "2001:db7::1", "2001:db9::1", "2a00:1450::1", "2606:4700:4700::1111"),
)
"""Public addresses next to networks that aren't public."""


@pytest.mark.parametrize(
    "ip", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", *EDGES]
)
def test_a_public_address_is_public(ip: str) -> None:
    assert is_public(ip)


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "2130706434", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0", "inside.test", "169.254.169.254"]
)
def test_a_redirect_to_an_inside_address_is_refused(server: PictureServer, host: str) -> None:
    server.answers["/start"] = redirect("/middle")
    server.answers["/middle"] = redirect(server.url("/cat", host))
    with pytest.raises(RelayError, match="local network"):
        get(server.url("/start"), Door(inside=["10.1.2.3"]))
    assert [path for _, path in server.asked] == ["/start", "/middle"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "url: .*not file:"),
        ("ftp://pictures.test/cat", "not ftp:"),
        ("http://me:secret@pictures.test/cat", "name or password"),
        ("http://[::1", "can't be read|invalid address"),
        ("", "redirects without an address"),
    ],
)
def test_a_redirect_is_checked_as_a_url_is(server: PictureServer, target: str, message: str) -> None:
    server.answers["/start"] = redirect(target)
    with pytest.raises(RelayError, match=message) as caught:
        get(server.url("/start"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_up_to_five(server: PictureServer, status: int) -> None:
    for index in range(MOST_REDIRECTS):
        server.answers[f"/{index}"] = redirect(f"{index + 1}", status)
    server.answers[f"/{MOST_REDIRECTS}"] = body(b"here")
    assert get(server.url("/0")) == b"here"
    server.answers["/before"] = redirect("/0", status)
    with pytest.raises(RelayError, match="more than 5 redirects"):
        get(server.url("/before"))


def test_the_connection_goes_to_the_address_that_was_checked(server: PictureServer) -> None:
    """The name is looked up only once, so a second, different answer has no effect."""

    class Changing(Door):
        def resolve(self, host: str, port: int) -> list[str]:
            self.resolved.append(host)
            return ["127.0.0.1"] if len(self.resolved) == 1 else ["127.0.0.2"]

    door = Changing()
    assert get(server.url("/cat", "changing.test"), door) == CONTENT
    assert door.resolved == ["changing.test"]
    server.answers["/again"] = redirect(server.url("/cat", "changing.test"))
    door.resolved.clear()
    with pytest.raises(RelayError, match="local network"):
        get(server.url("/again", "changing.test"), door)


def test_every_address_of_a_name_has_to_be_public(server: PictureServer) -> None:
    for ips in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::ffff:192.168.0.1"]):
        with pytest.raises(RelayError, match="local network"):
            get(server.url("/cat", "two.test"), Door(two=ips))
    assert server.asked == []


def test_a_proxy_of_the_environment_is_not_used(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(server.url("/cat")) == CONTENT


BAD = {
    "": "empty",
    "cat.png": "only https: and http: addresses",
    "file:///etc/passwd": "not file:",
    "data:image/png;base64,AAAA": "not data:",
    "gopher://example.com/": "not gopher:",
    "https://": "has no host",
    "https:///cat.png": "has no host",
    "https://me:secret@example.com/": "name or password",
    "https://secret@example.com/": "name or password",
    "https://example.com:22/": "port 22",
    "https://example.com:8080/": "port 8080",
    "https://example.com:99999/": "can't be read",
    "https://[::1/": "can't be read",
    "https://example.com/a b": "a space",
    "https://example.com\\@127.0.0.1/": "a space, a backslash",
    "https://example.com/\r\nHost: x": "control character",
    "https://example.com/\0": "control character",
    "https://" + "a" * 64 + ".com/": "can't be read",
    "https://example.com/" + "a" * 5000: "5020 characters",
}


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RelayError, match=f"^url: .*{BAD[url]}") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_address_is_sent_as_a_browser_sends_it() -> None:
    address = check_url(" HTTPS://Bücher.Example:443/größe/%20a?q=ü&r=%2F#part ")
    assert (address.scheme, address.host, address.host_header) == (
        "https",
        "xn--bcher-kva.example",
        "xn--bcher-kva.example",
    )
    assert address.target == "/gr%C3%B6%C3%9Fe/%20a?q=%C3%BC&r=%2F"
    assert check_url("http://[2606:4700::1111]/").host_header == "[2606:4700::1111]"


def test_no_part_of_a_path_or_query_is_in_an_error(server: PictureServer) -> None:
    with pytest.raises(RelayError, match=r"http://pictures\.test answered with status 404") as caught:
        get(server.url("/secret/path?token=secret"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def slowly(piece: bytes, length: int | None, pause: float = 0.05) -> object:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length is not None:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        while not STOP[0].stopped.wait(pause):
            request.wfile.write(piece)

    return answer


STOP: list[PictureServer] = []


@pytest.fixture
def rude(server: PictureServer) -> PictureServer:
    STOP[:] = [server]

    def silent(request: BaseHTTPRequestHandler) -> None:
        server.stopped.wait(5)

    def slow_headers(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.stopped.wait(0.05):
            request.wfile.write(b"x")

    server.answers.update(
        {
            "/announced": body(b"x", length=1 << 40),
            "/endless": slowly(b"x" * 100_000, None, 0.0),
            "/lies": slowly(b"x" * 100_000, 10, 0.0),
            "/drip": slowly(b"x", 1000),
            "/silent": silent,
            "/slow-headers": slow_headers,
            "/short": body(b"abc", length=1000),
            "/no-http": lambda request: request.wfile.write(b"SSH-2.0-something\r\n\r\n"),
            "/huge-header": lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
        }
    )
    return server


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/announced", r"more than the allowed 0\.286102 MiB"),
        ("/endless", "more than .* MiB"),
        ("/drip", "took more than 1 s"),
        ("/silent", r"did not answer within 0\.3 s"),
        ("/slow-headers", "took more than 1 s"),
        ("/short", "connection .* failed: "),
        ("/no-http", "connection to http://pictures.test failed"),
        ("/huge-header", "connection to http://pictures.test failed"),
    ],
)
def test_no_server_can_keep_or_fill_us(rude: PictureServer, path: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(RelayError, match=message):
        get(rude.url(path))
    assert time.monotonic() - began < 3


def test_no_more_is_read_than_was_announced(rude: PictureServer) -> None:
    assert get(rude.url("/lies")) == b"x" * 10


@pytest.mark.parametrize("path", ["/drip", "/silent", "/slow-headers"])
def test_a_cancel_ends_it_at_once(rude: PictureServer, path: str) -> None:
    patient = Limits(read_seconds=30, total_seconds=30)

    class Impatient(SilentMonitor):
        def check(self) -> None:
            if time.monotonic() - began > 0.4:
                raise Stopped

    began = time.monotonic()
    with pytest.raises(Stopped):
        fetch(rude.url(path), Impatient(), limits=patient, network=Door())
    assert time.monotonic() - began < 1.5
    assert threads_end()


def threads_end() -> bool:
    """Whether the download thread has ended."""
    import threading

    for _ in range(100):
        if not [thread for thread in threading.enumerate() if thread.name == "diffusers-relay-download"]:
            return True
        time.sleep(0.02)
    return False


def test_a_compressed_answer_is_not_asked_for_and_not_unpacked(server: PictureServer) -> None:
    """A compressed bomb of zeros would expand a thousandfold."""
    bomb = gzip.compress(bytes(50_000_000))
    asked: list[str | None] = []

    def compressed(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(bomb)))
        handler.end_headers()
        handler.wfile.write(bomb)

    server.answers["/bomb"] = compressed
    assert get(server.url("/bomb")) == bomb
    assert asked == ["identity"]


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(RelayError, match=r"connection to http://pictures\.test failed"):
        get(f"http://pictures.test:{port}/")
    with pytest.raises(RelayError, match=r"host nobody\.test was not found"):
        get("http://nobody.test/", Door(nobody=[]))


def test_the_next_address_is_tried_where_one_does_not_answer(server: PictureServer) -> None:
    class Wide(Door):
        def allows(self, address: str) -> bool:
            return address.startswith("127.0.0.")

    assert get(server.url("/cat", "two.test"), Wide(two=["127.0.0.3", "127.0.0.1"])) == CONTENT


def test_tls_is_for_the_name_and_not_for_the_address() -> None:
    with picture_server(tls=True) as server:
        server.answers["/cat"] = body(CONTENT)
        assert get(server.url("/cat", scheme="https")) == CONTENT
        for host in ("other.test", "127.0.0.1"):
            with pytest.raises(RelayError, match="certificate is not valid for this host"):
                get(server.url("/cat", host, "https"), Door(other=["127.0.0.1"]))
        unknown = Door()
        unknown.ca_certificates = None
        with pytest.raises(RelayError, match="certificate"):
            get(server.url("/cat", scheme="https"), unknown)
        with suppress(RelayError):
            get(server.url("/cat"))  # plain HTTP to a TLS port
    assert [host for host, _ in server.asked] == [f"pictures.test:{server.port}"]
