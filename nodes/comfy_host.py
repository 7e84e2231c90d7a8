"""The only module that talks to the host: its devices and memory, progress, previews, cancel, and model folders."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.latent_formats
import comfy.model_management as memory
import comfy.utils
import folder_paths
from comfy.cli_args import args

from ..pipelines.autoencoder import Autoencoder, autoencoder_of
from ..pipelines.errors import RelayError
from ..pipelines.offload import Stage
from ..pipelines.runtime import Runtime

if TYPE_CHECKING:
    import torch

    from ..pipelines.components import PipelineComponents

log = logging.getLogger("diffusers_relay")

DTYPES = ("auto", "float32", "float16", "bfloat16")
CATEGORY = "Diffusers Relay"
ALLOW_URL = "RELAY_ALLOW_URL"


class HostOffload:
    """Whole modules on the host's device for a stage, its offload device after it. The host frees room first."""

    @contextmanager
    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> Iterator[torch.device]:
        device, home = _devices(stage)
        modules = list(modules)
        away = [module for module in modules if next(module.parameters()).device != device]
        log.debug("stage %s: %s", stage.value, ", ".join(type(module).__name__ for module in modules))
        memory.free_memory(sum(memory.module_size(module) for module in away) + working_bytes, device)
        try:
            for module in away:
                module.to(device)
            yield device
        finally:
            if home != device:
                for module in modules:
                    module.to(home)
                memory.soft_empty_cache()

    def output_device(self) -> torch.device:
        return memory.intermediate_device()


def _devices(stage: Stage) -> tuple[torch.device, torch.device]:
    if stage is Stage.TEXT:
        return memory.text_encoder_device(), memory.text_encoder_offload_device()
    if stage is Stage.VAE:
        return memory.vae_device(), memory.vae_offload_device()
    return memory.get_torch_device(), memory.unet_offload_device()


class HostMonitor:
    """Progress and previews in the node, and the host's cancel button."""

    def __init__(self, node_id: str | None, make_previewer: Callable[[], Any]) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._make_previewer = make_previewer
        self._previewer: Any = None

    def check(self) -> None:
        memory.throw_exception_if_processing_interrupted()

    def expect_latents(self) -> bool:
        self._previewer = self._make_previewer()
        return self._previewer is not None

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self.check()
        preview = None
        if latents is not None and self._previewer is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents.float())
        self._bar.update_absolute(done, total, preview)

    def say(self, message: str) -> None:
        from server import PromptServer

        log.info("%s", message)
        server = getattr(PromptServer, "instance", None)
        if server is not None and self._node_id is not None:
            server.send_progress_text(message, self._node_id)


class FittedFormat(comfy.latent_formats.LatentFormat):
    """A latent format for a space that the host has none for; its colours are fitted when a preview is wanted."""

    def __init__(self, autoencoder: Autoencoder, policy: HostOffload) -> None:
        self.latent_channels = autoencoder.channels
        self._autoencoder, self._policy = autoencoder, policy

    @property
    def latent_rgb_factors(self) -> list[list[float]]:
        return self._autoencoder.rgb_factors(self._policy)[0].tolist()

    @property
    def latent_rgb_factors_bias(self) -> list[float]:
        return self._autoencoder.rgb_factors(self._policy)[1].tolist()


def _previewer(model: PipelineComponents, policy: HostOffload) -> Any:
    """The host's previewer for the model's latents; None where the host has previews off."""
    import latent_preview

    if model.family.preview_format is None:
        latent_format = FittedFormat(autoencoder_of(model), policy)
    else:
        latent_format = getattr(comfy.latent_formats, model.family.preview_format)()
    return latent_preview.get_previewer(memory.get_torch_device(), latent_format)


def runtime_for(node: Any, model: PipelineComponents | None = None) -> Runtime:
    """Where a node's run happens and who watches it; with ``model``, its latents are previewed."""
    policy = HostOffload()
    make_previewer = (lambda: None) if model is None else partial(_previewer, model, policy)
    return Runtime(policy, HostMonitor(getattr(node.hidden, "unique_id", None), make_previewer))


def pick_dtype(name: str) -> torch.dtype:
    """``auto`` is what the host would run a diffusion model in on its device."""
    import torch

    check_choice("dtype", name, DTYPES)
    if name != "auto":
        return getattr(torch, name)
    supported = [torch.float16, torch.bfloat16, torch.float32]
    chosen = memory.unet_dtype(device=memory.get_torch_device(), supported_dtypes=supported)
    # The host can be told to keep weights in 8 or 64 bits, which diffusers' modules do not run in.
    return chosen if chosen in supported else torch.float32


def diffusers_folders() -> dict[str, str]:
    """Name -> path of every diffusers model under the host's diffusers folders."""
    return folders_with("model_index.json", "diffusers")


def folders_with(file: str, kind: str) -> dict[str, str]:
    """Name -> path of every folder that holds ``file`` under the host's folders for ``kind``; the first path wins."""
    found: dict[str, str] = {}
    for root in folder_paths.get_folder_paths(kind):
        seen: set[str] = set()
        for folder, children, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link back up would be walked for ever
                children.clear()
                continue
            seen.add(real)
            if file in files:
                found.setdefault(os.path.relpath(folder, root).replace(os.sep, "/"), folder)
                children.clear()
    return dict(sorted(found.items()))


def safetensors_files(kind: str) -> list[str]:
    """The names of the host's files of ``kind`` (``loras``, ``embeddings``) that can be read without running code."""
    return [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(".safetensors")]


def pick_file(name: str, value: str, kind: str) -> str:
    """The path of a choice among :func:`safetensors_files`; nothing but a listed name gets through."""
    have = safetensors_files(kind)
    if value in have:
        return folder_paths.get_full_path_or_raise(kind, value)
    if value in folder_paths.get_filename_list(kind):
        raise RelayError(
            f"{name}: {value!r} is a pickle, which can run any code when it is read. Only safetensors are read: convert it once, on a "
            "machine where you trust its author, or choose another."
        )
    listed = ", ".join(have) or f"none: put a safetensors file in models/{kind}"
    raise RelayError(
        f"{name}: {value!r} is not among the files of this ComfyUI. It has: {listed}. Choose one of these, or add the missing one."
    )


def state_of_file(kind: str, value: str) -> str:
    """Another text whenever the file is written."""
    path = folder_paths.get_full_path(kind, value) if value in safetensors_files(kind) else None
    if path is None:
        return "missing"
    state = os.stat(path)
    return f"{path} {state.st_mtime_ns, state.st_size}"


def model_files(kind: str) -> dict[str, str]:
    """Name -> path of every file of the host's folders for ``kind``, pickles too; the first path wins, as in the host."""
    names = folder_paths.get_filename_list(kind)
    paths = ((name, folder_paths.get_full_path(kind, name)) for name in names)
    return {name.replace(os.sep, "/"): path for name, path in paths if path is not None}


def tokenizer_folder() -> Path:
    """Where the host keeps CLIP's vocabulary, which checkpoint files lack."""
    return Path(comfy.utils.__file__).parent / "sd1_tokenizer"


def state_of_files(folder: str) -> str:
    """Another text whenever the file, or a file in the folder, is written, added or taken away."""
    if os.path.isfile(folder):
        file = os.stat(folder)
        return f"{folder} {file.st_mtime_ns, file.st_size}"
    states = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            state = os.stat(path) if os.path.exists(path) else None
            states.append(f"{path} {state and (state.st_mtime_ns, state.st_size)}")
    return "\n".join(sorted(states))


def pick_folder(
    name: str,
    value: str,
    folders: dict[str, str],
    kind: str = "models",
    none: str = "none: put a diffusers model in models/diffusers",
) -> str:
    """The path of a choice. The host does not check choices of a shared workflow; nothing but a listed name gets through."""
    if value not in folders:
        have = ", ".join(folders) or none
        raise RelayError(
            f"{name}: {value!r} is not among the {kind} of this ComfyUI. It has: {have}. Choose one of these, or add the missing one."
        )
    return folders[value]


def check_choice(name: str, value: str, options: Iterable[str]) -> str:
    """The host does not check choices of a shared workflow either."""
    options = list(options)
    if value not in options:
        raise RelayError(f"{name}: {value!r} is not a choice of this version. Choose one of: {', '.join(options)}.")
    return value


def check_urls_allowed() -> None:
    """Whoever can reach this server could have it fetch things, so the user has to say that they may.

    Raises:
        RelayError: the server listens to other machines, and RELAY_ALLOW_URL is not 1.
    """
    if os.environ.get(ALLOW_URL) == "1" or all(_is_loopback(host) for host in args.listen.split(",")):
        return
    raise RelayError(
        f"url: this ComfyUI can be reached from other machines (--listen {args.listen}), so pictures of the internet are not fetched. "
        f"Set the environment variable {ALLOW_URL}=1 and restart to allow it, or download the picture and use Load Image."
    )


def _is_loopback(host: str) -> bool:
    host = host.strip().strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refusal(check: Callable[..., object], *values: Any) -> bool | str:
    """For ``validate_inputs``: True, or what ``check`` says against ``values``, so that a prompt is refused before it runs.

    A value that comes over a wire is not known then, and is None: the node checks it when it runs.
    """
    if any(value is None for value in values):
        return True
    try:
        check(*values)
    except RelayError as error:
        return str(error)
    return True
