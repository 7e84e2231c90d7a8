"""A hub id -> a local folder with what the pack needs of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..base.watched import Cancelled, Transfer, run_watched
from ..files.config_files import most_bytes
from ..files.model_files import ComponentFiles
from .hub_errors import OR_A_FOLDER, HubError, explain, offline
from .hub_names import check_names, check_repo_id, check_revision
from .hub_transfer import RemoteFile, fetch_file

if TYPE_CHECKING:
    import torch

DEFAULT_REVISION = "main"
LISTING_TIMEOUT_SECONDS = 15.0
COMMIT = re.compile(r"[0-9a-f]{40}")

Plan = Callable[[Path, Collection[str], str, "torch.dtype", str], tuple[ComponentFiles, ...]]
"""(snapshot folder with the index, every file's name, variant, dtype, title) -> the files to fetch."""


@dataclass(frozen=True)
class RepoKind:
    """What a repository is expected to hold."""

    index: str
    """The file that says what it is."""
    plan: Plan
    names_in: Callable[[Path], list[str]]
    """The names in a snapshot folder that ``plan`` is to see."""
    no_index: str
    """What the user reads where there is no index, after "OWNER/NAME has no FILE, "."""
    or_a_folder: str = OR_A_FOLDER
    """What to do with no hub."""


def fetch_repo(
    repo_id: str,
    *,
    revision: str = "",
    variant: str = "auto",
    dtype: torch.dtype,
    monitor: Monitor,
    kind: RepoKind,
) -> Path:
    """The snapshot folder, in huggingface_hub's cache, of a repo at a revision; downloads what is not there yet.

    Only the components that the family names are fetched: configs, vocabularies, and one set of safetensors weights.
    Whatever keeps the hub from answering, a complete copy in the cache is used, and the user is told.

    Args:
        repo_id: ``owner/name`` or ``name``.
        revision: branch, tag or commit; empty for the main branch.
        variant: see :func:`.model_files.plan_files`.
        monitor: progress is in bytes, over all files that are fetched.
        kind: what the repo is expected to hold.

    Raises:
        RelayError: no such repo, not allowed, not a model that the pack runs, not reachable and not in the cache, or
            the disk is full.
    """
    from huggingface_hub import constants

    check_repo_id(repo_id)
    revision = revision or DEFAULT_REVISION
    check_revision(revision)
    monitor.check()
    request = _Request(repo_id, revision, variant, dtype, kind)
    cached = request.cached_folder()
    if cached is not None and COMMIT.fullmatch(revision) and request.problem_of(cached) is None:
        return cached  # a commit never changes
    if constants.HF_HUB_OFFLINE:
        return request.complete(cached, offline(request.title, kind.or_a_folder))
    try:
        folder, files = run_watched(request.list_files, monitor)
    except HubError as error:
        folder = request.complete(cached, error)
        monitor.say(f"{error.problem} Using the copy in this machine's cache.")
        return folder
    request.download(folder, files, monitor)
    return folder


@dataclass(frozen=True)
class _Request:
    """What :func:`fetch_repo` was asked for."""

    repo_id: str
    revision: str
    variant: str
    dtype: torch.dtype
    kind: RepoKind

    @property
    def title(self) -> str:
        return self.repo_id if self.revision == DEFAULT_REVISION else f"{self.repo_id} at revision {self.revision}"

    def plan(self, folder: Path, names: Collection[str]) -> tuple[ComponentFiles, ...]:
        return self.kind.plan(folder, names, self.variant, self.dtype, self.title)

    def cached_folder(self) -> Path | None:
        """The snapshot that the cache remembers for the revision; it may lack files."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo_id, self.kind.index, cache_dir=_cache(), revision=self.revision)
        return Path(found).parent if isinstance(found, str) else None

    def problem_of(self, folder: Path) -> RelayError | None:
        """What keeps a snapshot from being loaded as it is."""
        try:
            self.plan(folder, self.kind.names_in(folder))
        except RelayError as error:
            return error
        return None

    def complete(self, cached: Path | None, error: HubError) -> Path:
        """The cached snapshot, if it is complete; otherwise raises what keeps the hub from completing it."""
        if cached is None:
            raise RelayError(
                f"{error.problem} {self.kind.index} of {self.title} is not in this machine's cache ({_cache()}). {error.remedy}"
            ) from error
        if (problem := self.problem_of(cached)) is not None:
            raise RelayError(
                f"{error.problem} The copy in this machine's cache ({_cache()}) cannot be used: {problem} {error.remedy}"
            ) from error
        return cached

    def list_files(self, transfer: Transfer) -> tuple[Path, dict[str, RemoteFile]]:
        """The snapshot's folder, which holds the index, and every file of that commit in the repo.

        Raises:
            HubError: the hub does not answer.
            RelayError: it is not what is expected.
        """
        try:
            return self._list_files(transfer)
        except Cancelled:
            raise
        except Exception as error:
            raise explain(error, self.title, self.kind.index, self.kind.or_a_folder) from error

    def _list_files(self, transfer: Transfer) -> tuple[Path, dict[str, RemoteFile]]:
        from huggingface_hub import hf_hub_download

        info = self._info(self.revision)
        if self.kind.index not in {sibling.rfilename for sibling in info.siblings}:
            raise RelayError(f"{self.title} has no {self.kind.index}, {self.kind.no_index}")
        for sibling in info.siblings:
            if sibling.rfilename == self.kind.index:
                self._check_size(sibling.rfilename, sibling.size or 0)
        transfer.check()
        # asked for by the revision's own name, so that the cache remembers which commit that is
        folder = Path(hf_hub_download(self.repo_id, self.kind.index, revision=self.revision, cache_dir=_cache())).parent
        if folder.name != info.sha:  # pushed to in between
            transfer.check()
            info = self._info(folder.name)
        return folder, {
            sibling.rfilename: RemoteFile(
                self.repo_id,
                folder.name,
                sibling.rfilename,
                sibling.size or 0,
                sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings
        }

    def _check_size(self, name: str, size: int) -> None:
        if size > most_bytes(name):
            raise RelayError(
                f"{self.title}: {name} has {size / 1e6:.0f} MB, which no file of its kind has. Nothing of it was fetched: take another copy."
            )

    def _info(self, revision: str) -> Any:
        from huggingface_hub import HfApi

        api = HfApi()
        info = api.model_info(self.repo_id, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT_SECONDS)
        check_names([sibling.rfilename for sibling in info.siblings or ()], self.title)
        return info

    def download(self, folder: Path, files: Mapping[str, RemoteFile], monitor: Monitor) -> None:
        """Completes the snapshot."""
        plan = self.plan(folder, files.keys())
        missing = [files[name] for component in plan for name in component.all_files if not (folder / name).exists()]
        if not missing:
            return
        small = {name for component in plan for name in component.all_files if name not in component.weights}
        for file in missing:
            if file.name in small:
                self._check_size(file.name, file.size)
        total = sum(file.size for file in missing)
        free = shutil.disk_usage(folder).free
        if free < total:
            raise RelayError(
                f"{self.title} needs {total / 1e6:.0f} MB, and the disk of {_cache()} has {free / 1e6:.0f} MB free. "
                f"Free some space, or set HF_HOME to a folder on another disk and restart."
            )
        monitor.say(f"Fetching {self.title}: {len(missing)} files, {total / 1e6:.1f} MB.")

        def fetch_all(transfer: Transfer) -> None:
            for file in missing:
                try:
                    fetch_file(file, transfer, _cache())
                except Cancelled:
                    raise
                except Exception as error:
                    raise explain(error, self.title, file.name, self.kind.or_a_folder) from error

        run_watched(fetch_all, monitor, total)


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()
