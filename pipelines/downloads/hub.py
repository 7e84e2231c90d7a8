"""Downloads the files that the pack needs from a hub repo, into huggingface_hub's cache."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, shown
from ..base.monitor import Monitor
from ..base.watched import Cancelled, Transfer, run_watched
from ..files.component_files import ComponentFiles
from ..files.config_files import most_bytes
from .hub_errors import OR_A_FOLDER, HubError, explain, offline
from .hub_names import check_names, check_repo_id, check_revision, check_subfolder
from .hub_transfer import RemoteFile, fetch_file

if TYPE_CHECKING:
    import torch

DEFAULT_REVISION = "main"
MOST_LISTED = 12
"""How many folders of a repo an error lists."""
LISTING_TIMEOUT_SECONDS = 15.0
COMMIT = re.compile(r"[0-9a-f]{40}")
Plan = Callable[[Path, Collection[str], str, "torch.dtype", str], tuple[ComponentFiles, ...]]
"""(Snapshot folder with the index, names of all files, variant, dtype, title) -> the files to download."""


@dataclass(frozen=True)
class RepoKind:
    """What a repository must contain."""

    index: str
    """The file that describes the model, perhaps in a folder."""
    plan: Plan
    names_in: Callable[[Path], list[str]]
    """Snapshot folder -> the names for ``plan``."""
    no_index: str
    """End of the message for a repo without the index, after "OWNER/NAME has no FILE, "."""
    or_a_folder: str = OR_A_FOLDER
    """What to do without the hub."""


def fetch_repo(
    repo_id: str,
    *,
    revision: str = "",
    subfolder: str = "",
    variant: str = "auto",
    dtype: torch.dtype,
    monitor: Monitor,
    kind: RepoKind,
) -> Path:
    """The folder of a model in a repo at a revision, in huggingface_hub's cache. Downloads missing files.

    Only files of the family's components are downloaded: configs, vocabularies and one set of safetensors weights. If the
    hub does not answer for any reason, a complete copy in the cache is used, and the user is told.

    Args:
        repo_id: ``owner/name`` or ``name``.
        revision: branch, tag or commit; empty for the main branch.
        subfolder: the folder of the repo that has the model; empty if the repo itself is the model. Only its files are downloaded.
        variant: see :func:`.model_files.plan_files`.
        monitor: gets progress in bytes, over all files that are downloaded.
        kind: what the repo must contain.

    Raises:
        RelayError: there is no such repo, access is denied, it is not a model that the pack runs, the hub is not reachable
            and the cache has no copy, or the disk is full.
    """
    from huggingface_hub import constants

    check_repo_id(repo_id)
    revision = revision or DEFAULT_REVISION
    check_revision(revision)
    check_subfolder(subfolder)
    monitor.check()
    request = _Request(repo_id, revision, subfolder, variant, dtype, kind)
    cached = request.cached_folder()
    if cached is not None and COMMIT.fullmatch(revision) and request.problem_of(cached) is None:
        return cached  # a commit never changes
    if constants.HF_HUB_OFFLINE:
        return request.complete(cached, offline(request.repo_title, kind.or_a_folder))
    try:
        folder, files = run_watched(request.list_files, monitor)
    except HubError as error:
        folder = request.complete(cached, error)
        monitor.say(f"{error.problem} Using the copy in this machine's cache.")
        return folder
    request.download(folder, files, monitor)
    return folder


def title_of(repo_id: str, subfolder: str) -> str:
    """A model on the hub, for messages."""
    return f"{repo_id}/{subfolder}" if subfolder else repo_id


@dataclass(frozen=True)
class _Request:
    """The arguments of :func:`fetch_repo`."""

    repo_id: str
    revision: str
    subfolder: str
    variant: str
    dtype: torch.dtype
    kind: RepoKind

    @property
    def title(self) -> str:
        """The model, for messages."""
        return self._titled(title_of(self.repo_id, self.subfolder))

    @property
    def repo_title(self) -> str:
        return self._titled(self.repo_id)

    def _titled(self, name: str) -> str:
        return name if self.revision == DEFAULT_REVISION else f"{name} at revision {self.revision}"

    @property
    def index(self) -> str:
        """The repo's name of the file that describes the model."""
        return f"{self.subfolder}/{self.kind.index}" if self.subfolder else self.kind.index

    def plan(self, folder: Path, names: Collection[str]) -> tuple[ComponentFiles, ...]:
        return self.kind.plan(folder, names, self.variant, self.dtype, self.title)

    def cached_folder(self) -> Path | None:
        """The model's folder that the cache has for the revision, perhaps incomplete; None if there is none."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo_id, self.index, cache_dir=_cache(), revision=self.revision)
        return self._folder_of(Path(found)) if isinstance(found, str) else None

    def _folder_of(self, index: Path) -> Path:
        """The model's folder, from the path of the index in it."""
        return index.parents[self.kind.index.count("/")]

    def problem_of(self, folder: Path) -> RelayError | None:
        """Why a snapshot can't be loaded without more downloads; None if it can."""
        try:
            self.plan(folder, self.kind.names_in(folder))
        except RelayError as error:
            return error
        return None

    def complete(self, cached: Path | None, error: HubError) -> Path:
        """The cached folder if it is complete; otherwise raises ``error`` with what is missing."""
        if cached is None:
            raise RelayError(
                f"{error.problem} {self.index} of {self.repo_title} is not in this machine's cache ({_cache()}). {error.remedy}"
            ) from error
        if (problem := self.problem_of(cached)) is not None:
            raise RelayError(
                f"{error.problem} The copy in this machine's cache ({_cache()}) can't be used: {problem} {error.remedy}"
            ) from error
        return cached

    def list_files(self, transfer: Transfer) -> tuple[Path, dict[str, RemoteFile]]:
        """The model's folder with the index, and all its files of that commit in the repo, by their names in that folder.

        Raises:
            HubError: the hub does not answer.
            RelayError: the repo is not what was expected.
        """
        try:
            return self._list_files(transfer)
        except Cancelled:
            raise
        except Exception as error:
            raise explain(error, self.repo_title, self.index, self.kind.or_a_folder) from error

    def _list_files(self, transfer: Transfer) -> tuple[Path, dict[str, RemoteFile]]:
        from huggingface_hub import hf_hub_download

        info = self._info(self.revision)
        names = {sibling.rfilename for sibling in info.siblings}
        if self.index not in names:
            raise self._no_index(names)
        for sibling in info.siblings:
            if sibling.rfilename == self.index:
                self._check_size(sibling.rfilename, sibling.size or 0)
        transfer.check()
        # requested by the name of the revision, so that the cache remembers its commit
        index = Path(hf_hub_download(self.repo_id, self.index, revision=self.revision, cache_dir=_cache()))
        commit = index.parents[self.index.count("/")].name
        if commit != info.sha:  # someone has pushed a new commit since
            transfer.check()
            info = self._info(commit)
        start = self.index.removesuffix(self.kind.index)
        return self._folder_of(index), {
            sibling.rfilename.removeprefix(start): RemoteFile(
                self.repo_id,
                commit,
                sibling.rfilename,
                sibling.size or 0,
                sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings
            if sibling.rfilename.startswith(start)
        }

    def _no_index(self, names: Collection[str]) -> RelayError:
        """The error for a repo without the index in that folder, which says where the repo has one."""
        found = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] == self.kind.index}
        folders = [shown(folder) for folder in sorted(found - {""})]
        told = [f"{self.title} has no {self.kind.index}, {self.kind.no_index}"]
        if "" in found:
            told = [
                f"{self.title} has no {self.kind.index}. The repository has one at its top level: leave subfolder empty for it."
            ]
        if folders:
            listed = ", ".join(folders[:MOST_LISTED]) + (", ..." if len(folders) > MOST_LISTED else "")
            told.append(f"Folders with a {self.kind.index}, which can be entered as subfolder: {listed}.")
        return RelayError(" ".join(told))

    def _check_size(self, name: str, size: int) -> None:
        if size > most_bytes(name):
            raise RelayError(
                f"{self.title}: {name} has {size / 1e6:.0f} MB, far more than such a file needs, so it was not downloaded. Use another copy."
            )

    def _info(self, revision: str) -> Any:
        from huggingface_hub import HfApi

        api = HfApi()
        info = api.model_info(self.repo_id, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT_SECONDS)
        check_names([sibling.rfilename for sibling in info.siblings or ()], self.title)
        return info

    def download(self, folder: Path, files: Mapping[str, RemoteFile], monitor: Monitor) -> None:
        """Downloads the missing files of the snapshot."""
        plan = self.plan(folder, files.keys())
        needed = [name for component in plan for name in component.all_files]
        weights = {name for component in plan for name in component.weights}
        missing = {name: files[name] for name in needed if not (folder / name).exists()}
        if not missing:
            return
        for name, file in missing.items():
            if name not in weights:
                self._check_size(file.name, file.size)
        total = sum(file.size for file in missing.values())
        free = shutil.disk_usage(folder).free
        if free < total:
            raise RelayError(
                f"{self.title} needs {total / 1e6:.0f} MB, but the disk of {_cache()} only has {free / 1e6:.0f} MB free. "
                f"Free some space, or set HF_HOME to a folder on another disk and restart."
            )
        monitor.say(f"Download of {self.title}: {len(missing)} files, {total / 1e6:.1f} MB.")

        def fetch_all(transfer: Transfer) -> None:
            for file in missing.values():
                try:
                    fetch_file(file, transfer, _cache())
                except Cancelled:
                    raise
                except Exception as error:
                    raise explain(error, self.repo_title, file.name, self.kind.or_a_folder) from error

        run_watched(fetch_all, monitor, total)


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()
