"""A web server on 127.0.0.1 with pictures and faulty answers, and access to it for the code under test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from diffusers_relay.pipelines.downloads.url_address import Internet

CERTIFICATE = Path(__file__).with_name("pictures_test.pem")
"""The certificate of pictures.test, with its key."""

Answer = Callable[[BaseHTTPRequestHandler], None]


class PictureServer:
    """answers: {path without the query: function that writes the whole answer}. asked: (Host header, path) of each request."""

    def __init__(self, port: int, stopped: threading.Event) -> None:
        self.port = port
        self.stopped = stopped
        """Set to stop answers that would never end."""
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []

    def url(self, path: str, host: str = "pictures.test", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


class Door(Internet):
    """Also allows 127.0.0.1, but no other private address. Looks names up in `names`."""

    ca_certificates = str(CERTIFICATE)

    def __init__(self, **names: list[str]) -> None:
        self.names = {f"{name}.test": ips for name, ips in {"pictures": ["127.0.0.1"], **names}.items()}
        self.resolved: list[str] = []

    def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        return self.names[host] if host in self.names else super().resolve(host, port)

    def allows(self, address: str) -> bool:
        return address == "127.0.0.1" or super().allows(address)

    def allows_port(self, port: int) -> bool:
        return True


@contextmanager
def picture_server(tls: bool = False) -> Iterator[PictureServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append((self.headers["Host"], self.path))
            answer = served.answers.get(self.path.split("?")[0])
            if answer is None:
                self.send_error(404)
                return
            with suppress(OSError):  # the client closed the connection
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # the client ended the handshake

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served = PictureServer(server.server_address[1], threading.Event())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.stopped.set()
        server.shutdown()
        server.server_close()


def body(
    content: bytes, kind: str = "application/octet-stream", status: int = 200, length: int | None = None
) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)

    return answer


def redirect(target: str, status: int = 302) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", target)
        request.end_headers()

    return answer
