"""Many tensors to another dtype: each by one thread, several at a time."""

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
    """A function that casts tensors to ``dtype``; it keeps as many threads as torch uses, as long as the block lasts.

    torch by itself puts all its threads to each tensor in turn, and waits a thousand times in a model for the last of them.
    Where another process wants the cores too, that takes twice as long as with one thread; this way is never slower.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "relay-cast", initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield lambda tensors: list(pool.map(lambda tensor: tensor.to(dtype), tensors))
    finally:
        torch.set_num_threads(threads)  # a thread's number is also that of threads which start later
