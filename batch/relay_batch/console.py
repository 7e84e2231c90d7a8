"""What a run shows: messages, and below them one line that lives."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

BETWEEN_LIVES, BETWEEN_LINES = 0.5, 60.0
"""Seconds between two states of the living line in a terminal, and between two lines in a log file."""
ERASE = "\r\x1b[K"


class Console:
    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._line = ""
        self._next = 0.0

    def say(self, text: str) -> None:
        """A message that stays."""
        if self._line:
            self._stream.write(ERASE)
        print(text, file=self._stream)
        self._stream.write(self._line)
        self._stream.flush()

    def live(self, text: str) -> None:
        """The state now. It replaces the last one; where that is not possible, it is shown less often."""
        if time.monotonic() < self._next:
            return
        if self._is_terminal:
            self._next = time.monotonic() + BETWEEN_LIVES
            self._line = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write(ERASE + self._line)
            self._stream.flush()
        else:
            self._next = time.monotonic() + BETWEEN_LINES
            self.say(text)

    def end(self, text: str) -> None:
        """The last state, which stays."""
        if self._line:
            self._stream.write(ERASE)
        self._line = ""
        self.say(text)
