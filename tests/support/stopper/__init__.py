"""A custom node pack for the tests: triggers an action in the host at an exact moment, which a test from outside could only hit by chance.

POST /stopper {"after": log lines to wait for, in order, optionally "layer" or "steps", "do": the action}
GET /stopper: {"happened": whether it has, "layers_since": how many more layers of that class ran}
GET /stopper/held: {"loaded": number of models on the host's list, "alive": diffusers' and transformers' models in the process}
"""

import errno
import gc
import logging
import os
import re
import sys

import comfy.model_management
import comfy.utils
import nodes
import safetensors
import safetensors.torch
import torch
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}
MODELS = ("diffusers.", "transformers.")


def cancel():
    nodes.interrupt_processing(True)


def fail_to_read():
    """Makes the next safetensors file unreadable, whoever opens it."""
    known = {safetensors.safe_open: "safe_open", safetensors.torch.load_file: "load_file"}
    places = [
        (module, name, real)
        for module in list(sys.modules.values())
        for real, name in known.items()
        if vars(module).get(name) is real
    ]

    def refuse(*_, **__):
        for module, name, real in places:
            setattr(module, name, real)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for module, name, _ in places:
        setattr(module, name, refuse)


DEEDS = {"cancel": cancel, "fail_to_read": fail_to_read}


class Moment:
    """Waits for the lines in `after`, then for the `count`th layer whose class name matches `layer`, or the step `steps`; then runs `do`."""

    def __init__(self, after=(), do="cancel", layer=None, steps=None, count=1):
        self.after, self.do, self.layer, self.steps, self.count = list(after), DEEDS[do], layer, steps, count
        self.happened, self.layers_since = False, 0

    def saw_line(self, text):
        if self.after and re.search(self.after[0], text):
            del self.after[0]
            if not self.after and self.layer is None and self.steps is None:
                self._now()

    def saw_layer(self, name):
        if not self.after and self.layer is not None and re.search(self.layer, name):
            self.layers_since += self.happened
            self.count -= 1
            if self.count == 0:
                self._now()

    def saw_progress(self, done):
        if not self.after and self.steps is not None and done >= self.steps:
            self._now()

    def _now(self):
        if not self.happened:
            self.happened = True
            self.do()


moment = Moment(["^no line is this$"])


class Lines(logging.Handler):
    def emit(self, record):
        moment.saw_line(record.getMessage())


logging.getLogger().addHandler(Lines())
torch.nn.modules.module.register_module_forward_pre_hook(
    lambda module, arguments: moment.saw_layer(type(module).__name__)
)
_update = comfy.utils.ProgressBar.update_absolute


def _seen(self, value, total=None, preview=None):
    moment.saw_progress(value)
    return _update(self, value, total, preview)


comfy.utils.ProgressBar.update_absolute = _seen


@PromptServer.instance.routes.post("/stopper")
async def arm(request):
    global moment
    moment = Moment(**await request.json())
    return web.json_response({})


@PromptServer.instance.routes.get("/stopper")
async def state(request):
    return web.json_response({"happened": moment.happened, "layers_since": moment.layers_since})


@PromptServer.instance.routes.get("/stopper/held")
async def held(request):
    gc.collect()
    alive = [type(thing).__name__ for thing in gc.get_objects() if _is_model(thing)]
    loaded = len(comfy.model_management.current_loaded_models)
    return web.json_response({"loaded": loaded, "alive": alive})


def _is_model(thing):
    kind = type(thing)
    return issubclass(kind, torch.nn.Module) and kind.__module__.startswith(MODELS) and hasattr(kind, "from_pretrained")
