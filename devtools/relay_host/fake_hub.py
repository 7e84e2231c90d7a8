"""A fake model hub in this process, on 127.0.0.1, with as much of the hub's protocol as downloads need.

As on the hub, large files are stored elsewhere: `resolve` redirects to another host name, which ignores tokens and accepts ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

PIECE_BYTES = 1 << 14


@dataclass
class FakeRepo:
    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False

    @classmethod
    def of_folder(cls, folder: Path, **more: bytes) -> FakeRepo:
        """Every file in `folder`, plus `more`: {path: content}."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return cls({**files, **more})


@dataclass
class Request:
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class FakeHub:
    repos: dict[str, FakeRepo] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    hold_after: int | None = None
    """After this many bytes of a large file, the transfer waits for `go_on`."""
    cut_after: int | None = None
    """After this many bytes of a large file, the connection breaks."""
    go_on: Event = field(default_factory=Event)
    sent: dict[str, int] = field(default_factory=dict)
    """{sha256: bytes sent in all requests}."""

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self._server.server_port}/storage"

    def fetched(self) -> set[str]:
        """Names of the repo files whose content was requested."""
        return {
            unquote(request.path.split("/resolve/")[1].partition("/")[2])
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        }


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(
            Request(self.command, path, self.headers.get("Authorization"), self.headers.get("Range"))
        )
        if match := re.fullmatch(r"/storage/([0-9a-f]{64})", path):
            return self._stored(match[1])
        if match := re.fullmatch(r"/api/models/(.+?)/revision/([^/]+)", path):
            return self._info(match[1], unquote(match[2]))
        if match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]))
        return self._answer(404)

    def _info(self, repo_id: str, revision: str) -> None:
        if repo := self._repo(repo_id, revision):
            siblings: list[dict[str, Any]] = []
            for name, content in repo.files.items():
                entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_sha(content)}
                if _is_large(name):
                    entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 130}
                siblings.append(entry)
            body = {"id": repo_id, "modelId": repo_id, "sha": repo.commit, "siblings": siblings, "tags": []}
            self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        repo = self._repo(repo_id, revision)
        if repo is None:
            return
        if repo.gated:
            self._answer(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif name not in repo.files:
            self._answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
        elif _is_large(name):
            content = repo.files[name]
            sha256 = _sha256(content)
            headers = {
                "X-Repo-Commit": repo.commit,
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
                "ETag": f'"{_git_sha(content)}"',
                "Location": f"{self.hub.storage}/{sha256}",
            }
            self._answer(302, headers=headers)
        else:
            content = repo.files[name]
            self._answer(200, content, {"X-Repo-Commit": repo.commit, "ETag": f'"{_git_sha(content)}"'})

    def _stored(self, sha256: str) -> None:
        contents = (content for repo in self.hub.repos.values() for content in repo.files.values())
        content = next((content for content in contents if _sha256(content) == sha256), None)
        if content is None:
            return self._answer(404)
        start, status = 0, 200
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(status, len(content) - start, headers)
        for place in range(start, len(content), PIECE_BYTES):
            if self.hub.cut_after is not None and place >= self.hub.cut_after:
                self.close_connection = True
                return None
            if self.hub.hold_after is not None and place >= self.hub.hold_after:
                self.hub.go_on.wait(30)
            piece = content[place : place + PIECE_BYTES]
            try:
                self.wfile.write(piece)
            except OSError:  # the client closed the connection
                self.close_connection = True
                return None
            self.hub.sent[sha256] = self.hub.sent.get(sha256, 0) + len(piece)
        return None

    def _repo(self, repo_id: str, revision: str) -> FakeRepo | None:
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self._answer(401, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in ("main", repo.commit):
            self._answer(404, headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            repo = None
        return repo

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), headers or {})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".ckpt", ".onnx", ".msgpack"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
