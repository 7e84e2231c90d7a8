"""The commands that run rows: run, retry and report."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .attempts import forget_attempts
from .console import Console
from .devices import visible_devices
from .engines.engine import Engine
from .engines.local import LocalEngine
from .engines.ray_cluster import OPEN_FLAG, Cluster
from .engines.ray_engine import RayEngine
from .errors import BatchError
from .host import base_directory
from .jobs import HostSetup
from .jobs_of_rows import run_spec
from .locks import Lock, Shard
from .node_table import NodeTable, load_node_table
from .plan import Request, make_plan
from .progress import HAS_FAILED, Progress, manifest_of, progress
from .records import FAILED, record_name
from .report import write_report
from .run import Driver, Limits
from .store import Store, open_store

SHARD = re.compile(r"(\d+)/(\d+)")
INTERRUPTED = 130


def local_engine(options: argparse.Namespace) -> Engine:
    return LocalEngine(options.devices.split(",") if options.devices else visible_devices())


def ray_engine(options: argparse.Namespace) -> Engine:
    return RayEngine(Cluster(options.address, options.worker_takes, options.open_cluster))


ENGINES: Mapping[str, Callable[[argparse.Namespace], Engine]] = {"local": local_engine, "ray": ray_engine}
"""--engine: what makes it from the command line."""


def add_commands(commands: Any, add_plan_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds the parsers of `run`, `retry` and `report`."""
    run = commands.add_parser("run", help="run the rows that are left, and go on after a stop")
    run.set_defaults(command=run_rows)
    add_plan_options(run)
    run.add_argument("--workers", type=_whole, default=1, metavar="N", help="how many ComfyUIs run (default 1)")
    run.add_argument("--engine", choices=list(ENGINES), default="local", help="what runs the workers (default local)")
    run.add_argument(
        "--shard", type=read_shard, default=Shard(), metavar="K/N", help="run only every N-th row, from row K on"
    )
    run.add_argument(
        "--python", metavar="PROGRAM", help="the Python that runs ComfyUI (default: that of its environment)"
    )
    run.add_argument(
        "--host-arguments", default="", metavar="TEXT", help='more arguments for ComfyUI: --host-arguments="--lowvram"'
    )
    run.add_argument(
        "--devices", metavar="LIST", help="the GPUs that the workers share, as in CUDA_VISIBLE_DEVICES: 0,1"
    )
    run.add_argument("--work", type=Path, metavar="FOLDER", help="where each ComfyUI has its temp files and its log")
    run.add_argument(
        "--retries",
        type=_whole_or_none,
        default=3,
        metavar="N",
        help="how often a row runs again after its worker ended (default 3)",
    )
    run.add_argument(
        "--row-timeout",
        type=_seconds,
        default=1800.0,
        metavar="SECONDS",
        help="a row that takes longer has failed (default 1800)",
    )
    run.add_argument(
        "--stop-after",
        type=_whole_or_none,
        default=100,
        metavar="N",
        help="stop when N rows fail one after the other (default 100; 0: never)",
    )
    on_ray = run.add_argument_group("with --engine ray")
    on_ray.add_argument(
        "--address",
        metavar="HOST:PORT",
        help='the head of the cluster, or "auto" for the cluster that this machine is in (default: this machine alone)',
    )
    on_ray.add_argument(
        "--worker-takes",
        metavar="RESOURCE",
        help="what a worker takes one of: GPU, or a resource of the cluster's own (default: a GPU, if there is any)",
    )
    on_ray.add_argument(
        OPEN_FLAG,
        dest="open_cluster",
        action="store_true",
        help="use a cluster on which whoever reaches it can run any code",
    )
    for name, command, text in (
        ("retry", retry, "let the rows that failed run again, with the next `run`"),
        ("report", report, "write the contact sheet"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("out", metavar="FOLDER", help="the output folder")
        one.set_defaults(command=command)


def read_shard(text: str) -> Shard:
    found = SHARD.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write 1/8 to 8/8 for eight parts")
    return Shard(int(found[1]), int(found[2]))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return found


def _whole_or_none(text: str) -> int:
    return 0 if text == "0" else _whole(text)


def run_rows(options: argparse.Namespace) -> int:
    """0 if every row of the shard is done, 1 if some have failed, 130 after Ctrl+C."""
    if options.comfyui is None:
        raise BatchError("--comfyui is missing: the folder of the ComfyUI that the workers start.")
    console, place = Console(), _absolute(options.out)
    store = open_store(place)
    for name in ("SIGTERM", "SIGHUP"):  # as Slurm and Docker stop a program, and a terminal that is closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupted)
    lock = Lock(store, options.shard, console.say)
    try:
        engine = ENGINES[options.engine](options)
        try:
            driver = _driver(options, place, store, engine, lock, console)
            found = driver.go()
        finally:
            engine.stop()
        console.end(driver.meter.line())
        console.say(f"The contact sheet: {place}/{write_report(store, manifest_of(store), found)}")
        return 1 if driver.meter.failed or driver.meter.left else 0
    except KeyboardInterrupt:
        console.end("Stopped. What is done is kept; the same command goes on.")
        return INTERRUPTED
    finally:
        with suppress(OSError):
            lock.release()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _driver(
    options: argparse.Namespace, place: str, store: Store, engine: Engine, lock: Lock, console: Console
) -> Driver:
    """Plans the run, with the node table that was named or that of the first worker, and checks it before the first row."""
    setup = HostSetup(
        str(options.comfyui.resolve()),
        options.python,
        tuple(shlex.split(options.host_arguments)),
        work=None if options.work is None else str(options.work.resolve()),
    )
    nodes = None if options.node_table is None else load_node_table(options.node_table)
    planned = None if nodes is None else make_plan(_request(options), nodes, store)
    console.say(f"Starting {options.workers} ComfyUI{'s' * (options.workers != 1)} ...")
    engine.start(setup, options.workers)
    if nodes is None or planned is None:
        nodes = NodeTable(engine.object_info())
        planned = make_plan(_request(options), nodes, store)
    run = run_spec(planned, nodes, place, options.retries + 1, options.row_timeout)
    return Driver(planned, run, store, engine, lock, Limits(options.shard, options.stop_after), console)


def _request(options: argparse.Namespace) -> Request:
    base = base_directory(shlex.split(options.host_arguments), options.comfyui)
    there = (base / "models").is_dir()  # it may be a path of another machine
    return Request(options.workflow, options.sets, options.images, options.product, base if there else None)


def _absolute(out: str) -> str:
    return out if "://" in out else str(Path(out).resolve())


def retry(options: argparse.Namespace) -> int:
    store = open_store(_absolute(options.out))
    found = _progress(store)
    for index in found.indexes(HAS_FAILED):
        forget_attempts(store, index)
        store.remove(record_name(index, FAILED))
    print(f"Failed rows that run again with the next `relay-batch run`: {found.failed}")
    return 0


def report(options: argparse.Namespace) -> int:
    place = _absolute(options.out)
    store = open_store(place)
    print(f"{place}/{write_report(store, manifest_of(store), _progress(store))}")
    return 0


def _progress(store: Store) -> Progress:
    return progress(store, manifest_of(store).rows)
