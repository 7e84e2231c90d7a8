"""Casts many tensors to another dtype, several at a time, each in one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Cast = Callable[[Sequence["torch.Tensor"]], "list[torch.Tensor]"]


@contextmanager
def casting(dtype: torch.dtype) -> Iterator[Cast]:
    """A function that casts tensors to ``dtype``, with as many threads as torch uses. It works inside the context only.

    torch itself uses all its threads on one tensor after the other, and for each waits for the slowest. If another process
    also uses the cores, that takes twice as long as with one thread; several tensors at a time are never slower.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "relay-cast", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield lambda tensors: list(pool.map(lambda tensor: tensor.to(dtype), tensors))
    finally:
        torch.set_num_threads(threads)  # set_num_threads in a thread also affects threads that start later
