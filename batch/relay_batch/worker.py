"""Runs rows on one ComfyUI, and publishes what comes out of it."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import attempts
from .engines.engine import Done, Failed, Lost, Outcome, StorageFault
from .errors import BadOutput, HostFailed, RowFault
from .host import Host
from .host_client import NoAnswer
from .jobs import HostSetup, InputPicture, Job, RunSpec
from .outputs import inside, raise_for_error, read_outputs, refusal, saved_files
from .records import DONE, Record, find_record, key_of, publish_done, publish_failed
from .sending import lay_down, row_prompt
from .store import Store, open_store

SHORTEST_WAIT, LONGEST_WAIT, PART_OF_THE_ROW = 0.01, 0.25, 0.02
"""Seconds between two questions to the host: a part of the time that the row has run."""
SILENT_HOST = 300.0
"""Seconds without an answer, after which a host is ended. One that loads a large model may not answer for a while."""
FORGOTTEN = 10.0
"""Seconds between two looks whether the host still knows the row."""
INTERRUPTED = 15.0
"""Seconds that a row has to end after it was interrupted; then its host is ended."""


class HostGone(Exception):
    """The host ended, or does not answer."""


class Worker:
    """A ComfyUI of its own, which stays warm over rows and runs.

    Args:
        name: in messages and in the name of its log: letters, digits and hyphens.
        beat: is called several times a second whatever the worker does, as long as it does not stand still.

    Raises HostFailed, here and in `run`, if ComfyUI can't be started.
    """

    def __init__(self, name: str, setup: HostSetup, beat: Callable[[], None] = lambda: None):
        self.name = name
        self.beat = beat
        self._host = Host(setup, beat)
        self._under_way: tuple[Store, int] | None = None
        self._store: Store | None = None
        self._is_abandoned = False
        try:
            self._start_host()
        except BaseException:
            self._host.close()
            raise

    def _start_host(self) -> None:
        try:
            self._host.start()
        except OSError as error:
            raise HostFailed(f"ComfyUI can't be started: {error}") from error

    def object_info(self) -> Mapping[str, Any]:
        """What its ComfyUI answers to /object_info."""
        try:
            return self._host.client.object_info()
        except NoAnswer as error:
            raise HostFailed(f"ComfyUI started, but does not describe its nodes: {error}") from error

    def run(self, run: RunSpec, job: Job) -> Outcome:
        """Runs a row to its end, and publishes its record unless its worker or the store is at fault."""
        if not self._host.is_alive():
            self._start_host()
        store = self._store = open_store(run.store)
        try:
            counted = attempts.begin_attempt(store, job.index)
            self._under_way = store, job.index
            outcome = self._outcome(run, job, store, counted)
            self._under_way = None
            return outcome
        except (OSError, BadOutput) as error:
            self._take_back()
            return StorageFault(self.name, job.index, str(error))

    def abandon(self) -> None:
        """Ends the host now. The row under way does not count as an attempt. Any thread may call it; nothing may follow."""
        self._is_abandoned = True
        self._take_back()
        self.close()

    def _take_back(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            with suppress(OSError):
                attempts.take_back_attempt(*under_way)

    def close(self) -> None:
        """Ends the host, and removes its folders."""
        self._host.stop()
        with suppress(OSError):
            self._keep_log()
        self._host.close()

    def _keep_log(self) -> None:
        if self._store is not None:
            self._store.replace(f"logs/{self.name}.log", self._host.log_tail())

    def _outcome(self, run: RunSpec, job: Job, store: Store, counted: attempts.Attempts) -> Outcome:
        began = time.monotonic()
        there = find_record(store, job.index, DONE) if counted.count > 1 else None
        try:
            if there is None:
                if counted.count > run.attempts:
                    raise RowFault(_used_up(counted))
                files = self._files(run, job, began + run.row_timeout)
                seconds = time.monotonic() - began
                there = publish_done(store, job.index, files, job.values, counted.count, seconds)
            outcome: Outcome = _done(self.name, there)
        except RowFault as fault:
            tried = min(counted.count, run.attempts)
            publish_failed(store, job.index, str(fault), job.values, tried, time.monotonic() - began)
            outcome = Failed(self.name, job.index, str(fault))
        except HostGone as gone:
            if not self._is_abandoned:
                self._host.stop()
                attempts.note_reason(store, job.index, str(gone))
                self._keep_log()
            return Lost(self.name, job.index, str(gone))
        attempts.forget_attempts(store, job.index)
        return outcome

    def _files(self, run: RunSpec, job: Job, deadline: float) -> list[tuple[str, bytes, str]]:
        """Runs the row: (node id, content, suffix) of each file that it saved."""
        prompt_id = str(uuid.uuid5(uuid.UUID(run.id), key_of(job.index)))
        prefix = f"{key_of(job.index)}-{uuid.uuid4().hex[:8]}/row"
        laid: list[Path] = []
        entry: Mapping[str, Any] = {}
        try:
            sent: dict[InputPicture, str] = {}
            for picture in job.pictures:
                laid.append(lay_down(picture, self._host.input))
                sent[picture] = laid[-1].name
            self._queue(row_prompt(run, job, sent, prefix), prompt_id)
            entry = self._wait(prompt_id, deadline, run.row_timeout)
            raise_for_error(entry)
            return read_outputs(entry, self._host.output)
        finally:
            self._clear(entry, prompt_id, laid, (self._host.output / prefix).parent)

    def _queue(self, prompt: dict[str, Any], prompt_id: str) -> None:
        silent = time.monotonic()
        while True:
            try:
                status, reply = self._host.client.queue(prompt, prompt_id)
                break
            except NoAnswer as error:
                self._check_host(silent, error)
        if status != 200:
            raise RowFault(refusal(status, reply))
        if reply.get("node_errors"):  # a part of it would run
            self._interrupt(prompt_id)
            raise RowFault(refusal(status, reply))

    def _wait(self, prompt_id: str, deadline: float, timeout: float) -> Mapping[str, Any]:
        began = heard = looked = time.monotonic()
        while True:
            self.beat()
            now = time.monotonic()
            try:
                entry = self._host.client.history(prompt_id)
                if entry is not None:
                    return entry
                if now - looked > FORGOTTEN:
                    looked = now
                    if not self._host.client.knows(prompt_id):
                        raise HostGone("ComfyUI no longer knows the row: it was restarted, or its queue was cleared")
                heard = now
            except NoAnswer as error:
                self._check_host(heard, error)
            if now > deadline:
                self._interrupt(prompt_id)
                raise RowFault(f"The row was not done within {timeout:g} s (--row-timeout).")
            time.sleep(min(LONGEST_WAIT, max(SHORTEST_WAIT, (now - began) * PART_OF_THE_ROW)))

    def _check_host(self, heard: float, error: NoAnswer) -> None:
        """Raises HostGone if the host ended, or has not been heard for too long."""
        time.sleep(SHORTEST_WAIT)
        self.beat()
        if not self._host.is_alive():
            raise HostGone(self._host.ending()) from error
        if time.monotonic() - heard > SILENT_HOST:
            raise HostGone(f"ComfyUI has not answered for {SILENT_HOST:.0f} s ({error})") from error

    def _interrupt(self, prompt_id: str) -> None:
        """Ends a row; ends the host if the row does not end."""
        until = time.monotonic() + INTERRUPTED
        while time.monotonic() < until:
            self.beat()
            with suppress(NoAnswer):
                self._host.client.interrupt(prompt_id)
                if self._host.client.history(prompt_id) is not None:
                    return
            time.sleep(LONGEST_WAIT)
        self._host.stop()

    def _clear(self, entry: Mapping[str, Any], prompt_id: str, laid: Sequence[Path], saved: Path) -> None:
        """Removes what the row has left in the host and in its folders. Other temp files stay: the host's cache may name them."""
        for file in laid:
            file.unlink(missing_ok=True)
        shutil.rmtree(saved, ignore_errors=True)
        for folder, kind in ((self._host.output, "output"), (self._host.temp, "temp")):
            for _, name in saved_files(entry, kind):
                with suppress(RowFault, OSError):
                    inside(folder, name).unlink()
        with suppress(NoAnswer):
            self._host.client.forget(prompt_id)


def _done(worker: str, record: Record) -> Done:
    return Done(worker, record.index, len(record.pictures), record.seconds)


def _used_up(counted: attempts.Attempts) -> str:
    reasons = "; ".join(dict.fromkeys(counted.reasons)) or "its worker ended"
    return f"The row was begun {counted.count - 1} times, and ended its worker each time ({reasons})."
