"""ComfyUI's HTTP interface, as far as a worker needs it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from .ui_convert import Prompt

TIMEOUT = 10.0
"""Seconds for one answer. A ComfyUI that loads a model may be slower: it is asked again."""
TABLE_TIMEOUT = 100.0
"""Seconds for the description of all nodes, which may be thousands."""


class NoAnswer(Exception):
    """The host did not answer this time. It may be busy, or gone."""


@dataclass(frozen=True)
class HostClient:
    """A ComfyUI on this machine. Each request has a connection of its own, and never goes through a proxy."""

    port: int

    def ask(self, path: str, timeout: float = TIMEOUT) -> Any:
        status, reply = self.request("GET", path, timeout=timeout)
        if status != 200:
            raise NoAnswer(f"GET {path}: HTTP {status}")
        return reply

    def request(self, method: str, path: str, data: Any = None, timeout: float = TIMEOUT) -> tuple[int, Any]:
        """(HTTP status, the answer's JSON; None if it is something else)"""
        body = None if data is None else json.dumps(data)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(content or b"null")
        except ValueError:
            return answer.status, None

    def arguments(self) -> list[str]:
        """The arguments of the server's main.py: they show whose server it is."""
        return [str(one) for one in self.ask("/system_stats")["system"].get("argv", ())]

    def object_info(self) -> dict[str, Any]:
        return dict(self.ask("/object_info", TABLE_TIMEOUT))

    def queue(self, prompt: Prompt, prompt_id: str) -> tuple[int, dict[str, Any]]:
        status, reply = self.request("POST", "/prompt", {"prompt": prompt, "prompt_id": prompt_id})
        return status, reply if isinstance(reply, dict) else {}

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """How a prompt ended; None if it has not."""
        found = self.ask(f"/history/{prompt_id}").get(prompt_id)
        return None if found is None else dict(found)

    def knows(self, prompt_id: str) -> bool:
        """Whether a prompt waits, runs or has ended."""
        queue = self.ask("/queue")
        waiting = [*queue["queue_running"], *queue["queue_pending"]]
        return any(entry[1] == prompt_id for entry in waiting) or self.history(prompt_id) is not None

    def interrupt(self, prompt_id: str) -> None:
        self.request("POST", "/queue", {"delete": [prompt_id]})
        self.request("POST", "/interrupt", {"prompt_id": prompt_id})

    def forget(self, prompt_id: str) -> None:
        """Removes a prompt from the history, which grows for ever otherwise."""
        self.request("POST", "/history", {"delete": [prompt_id]})
