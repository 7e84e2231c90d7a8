"""Turns errors of the hub and the disk into messages that say what to do, without tokens or request URLs."""

from __future__ import annotations

import errno

from ..base.errors import RelayError

OR_A_FOLDER = "or put a diffusers folder of the model under models/diffusers and use Load Diffusers Model"


class HubError(RelayError):
    """The hub did not send what was requested."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


def offline(title: str, or_a_folder: str = OR_A_FOLDER) -> HubError:
    """The error for a machine that is set to stay offline. ``or_a_folder``: what to do without the hub."""
    return HubError(
        f"HF_HUB_OFFLINE is set, so {title} can't be downloaded from the hub.",
        f"Unset it, restart and run once, {or_a_folder}.",
    )


def explain(error: Exception, title: str, file: str, or_a_folder: str = OR_A_FOLDER) -> RelayError:
    """The error to show for an error of huggingface_hub or the disk, raised while ``file`` of ``title`` was downloaded."""
    from huggingface_hub import errors

    if isinstance(error, RelayError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RelayError(
            f"The disk is full: {file} of {title} could not be written. Free some space, or set HF_HOME to a folder on "
            f"another disk and restart. The download will continue where it stopped."
        )
    if isinstance(error, PermissionError):
        return RelayError(
            f"{file} of {title} could not be written: {error.strerror} ({error.filename}). Make the folder writable, or set HF_HOME."
        )
    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{title} is gated.",
            "Accept its terms on its hub page, log in on this machine (`hf auth login`, or HF_TOKEN) and run again.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"The hub has no model {title}, or it is private.",
            "Check the spelling (owner/name). For a private model, log in on this machine (`hf auth login`, or HF_TOKEN).",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"The hub has no {title}.",
            "Leave revision empty for the main branch, or enter a branch, tag or commit of the repo.",
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline(title, or_a_folder)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubError(
            f"The hub refused {file} of {title} (status {status}).",
            "Log in again on this machine (`hf auth login`, or HF_TOKEN): its token is not valid for this.",
        )
    if status is not None:
        return HubError(
            f"The hub answered the request for {file} of {title} with status {status}.",
            "Wait a little and run again. What was downloaded so far is kept.",
        )
    return HubError(
        f"The connection to the hub failed at {file} of {title} ({_cause(error)}).",
        f"Run again when it is back, and the download will continue where it stopped; {or_a_folder}.",
    )


def _cause(error: BaseException) -> str:
    """The error's type, and the system's reason if there is one. A library's own text may contain a signed URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{type(error).__name__}: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
