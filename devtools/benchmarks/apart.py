"""Runs objects and functions of this package in a separate process, over a JSON pipe."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from relay_host.paths import ROOT, WORK
from relay_host.server import QUIET

from . import glibc

LOGS = WORK / "bench" / "logs"


class Apart:
    """Runs `target(**arguments)` in a new process; `call` calls methods of the resulting object.

    Arguments and results are JSON. The process has this process's environment (thread count) and the same allocator setting as the
    servers. default_allocator: keep the system's allocator setting.
    """

    def __init__(self, target: Callable[..., Any], *, default_allocator: bool = False, **arguments: Any) -> None:
        self.name = f"{target.__module__}:{target.__qualname__}"
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log_path = LOGS / f"{target.__qualname__}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "--apart", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=glibc.changed(
                    os.environ | QUIET | {"PYTHONPATH": str(ROOT / "devtools")},
                    glibc.variables(keeps_memory=not default_allocator),
                ),
                cwd=WORK,
                text=True,
            )
        self.made = self._ask(arguments)

    def call(self, method: str, **arguments: Any) -> Any:
        return self._ask({"method": method, "arguments": arguments})

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            log = "\n".join(self.log_path.read_text("utf-8", errors="replace").splitlines()[-30:])
            raise RuntimeError(f"{self.name} ended with exit code {code}:\n{log}")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def once(function: Callable[..., Any], *, default_allocator: bool = False, **arguments: Any) -> Any:
    """Runs `function` in a new process and returns its dict."""
    with Apart(function, default_allocator=default_allocator, **arguments) as apart:
        return apart.made


def serve(name: str) -> int:
    """The other end of the pipe, in the new process."""
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keep the libraries' output out of the answers

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    module, _, target = name.partition(":")
    made = getattr(importlib.import_module(module), target)(**json.loads(questions.readline()))
    answer(made if isinstance(made, dict) else None)
    for line in questions:
        question = json.loads(line)
        answer(getattr(made, question["method"])(**question["arguments"]))
    return 0
