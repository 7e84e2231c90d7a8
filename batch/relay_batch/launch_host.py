"""Runs a ComfyUI that ends with the process that started it, however that one ends.

It runs in ComfyUI's own Python, as `launch_host.py FOLDER ARGUMENT ...`, so it imports only the standard library. Its standard input is a
pipe that nobody writes to: the system closes it when the owner ends, also by SIGKILL.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_the_owner(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)  # what nodes have started ends too: the host leads a process group of its own
    os._exit(1)


def main() -> None:
    folder = sys.argv[1]
    pipe = os.dup(0)
    os.dup2(
        os.open(os.devnull, os.O_RDONLY), 0
    )  # a node that reads from standard input gets nothing, and does not wait
    threading.Thread(target=end_with_the_owner, args=(pipe,), daemon=True).start()
    program = os.path.join(folder, "main.py")
    sys.argv = [program, *sys.argv[2:]]
    sys.path[0] = folder
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
