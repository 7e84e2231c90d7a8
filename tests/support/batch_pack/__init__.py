"""A custom node pack for the tests of the batch package: a node that paints noise, and does harm if a row says so."""

import os
import signal
import time
from pathlib import Path

import comfy.model_management
import psutil
import torch

HARM = Path(__file__).parents[2] / "harm"
"""A file for each harm that is done only once."""


def is_first(name):
    try:
        (HARM / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def hang(seed):
    while True:
        time.sleep(0.05)
        comfy.model_management.throw_exception_if_processing_interrupted()


def hang_whatever_is_asked(seed):
    time.sleep(3600)


def fail(seed):
    raise ValueError(f"the seed {seed} is not liked")


def kill_the_host(seed):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_the_host_once(seed):
    if is_first(f"host-{seed}"):
        kill_the_host(seed)


def kill_the_worker_once(seed):
    if is_first(f"worker-{seed}"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)


def stop_the_worker_once(seed):
    """It lives, and says nothing more."""
    if is_first(f"stopped-{seed}"):
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(3600)


def start_a_program(seed):
    """The host's program, which must end with it."""
    program = psutil.Popen(["sleep", "3600"])
    (HARM / f"program-{program.pid}").touch()


def wait_for_the_test(seed):
    while not (HARM / "go").exists():
        time.sleep(0.05)


HARMS = {one.__name__: one for one in (hang, hang_whatever_is_asked, fail, kill_the_host, kill_the_host_once)}
HARMS |= {one.__name__: one for one in (kill_the_worker_once, stop_the_worker_once, start_a_program, wait_for_the_test)}


class BatchNoise:
    """The picture, and noise from the seed under it: every pixel depends on both."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("IMAGE",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63}),
                "seconds": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 60.0}),
                "harm": ("STRING", {"default": ""}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "paint"
    CATEGORY = "test"

    def paint(self, image, seed, seconds, harm):
        if harm:
            HARMS[harm](seed)
        time.sleep(seconds)
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
        return ((image + noise) / 2,)


NODE_CLASS_MAPPINGS = {"BatchNoise": BatchNoise}
