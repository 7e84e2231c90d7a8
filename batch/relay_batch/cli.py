"""The command line of relay-batch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from . import cli_run
from .addresses import Setting, Settings
from .errors import BatchError
from .locks import drivers
from .node_table import load_node_table
from .plan import Request, make_plan
from .progress import failures, faults, manifest_of, progress
from .store import open_store
from .workflow_file import read_workflow

NODE_TABLE = "http://127.0.0.1:8188"
SHOWN_TEXT = 60
SHOWN_CHOICES = 4
SHOWN_FAILURES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all is well, 1 if `status` or `verify` found failed rows or faults, 2 for what can't be done."""
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (BatchError, OSError) as error:  # an OSError is a store's
        print(f"relay-batch: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="relay-batch", description="The same ComfyUI workflow file over many rows.")
    commands = made.add_subparsers(required=True)
    inputs = commands.add_parser("inputs", help="list what can be set in a workflow: address, kind, present value")
    inputs.set_defaults(command=show_inputs)
    plan = commands.add_parser("plan", help="check a workflow and every row, and write the plan to the output folder")
    plan.set_defaults(command=plan_run)
    _add_host_options(inputs, NODE_TABLE, f"(default {NODE_TABLE})")
    _add_host_options(plan, NODE_TABLE, f"(default {NODE_TABLE})")
    _add_plan_options(plan)
    cli_run.add_commands(commands, _add_run_options)
    for name, command, text in (
        ("status", show_status, "how many rows are done, failed and left"),
        ("verify", verify, "compare every picture with its row's record"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("out", metavar="FOLDER", help="the output folder")
        one.set_defaults(command=command)
    return made


def _add_run_options(run: argparse.ArgumentParser) -> None:
    _add_host_options(run, None, "(default: that of the first worker)")
    _add_plan_options(run)


def _add_host_options(one: argparse.ArgumentParser, default: str | None, which: str) -> None:
    one.add_argument("workflow", type=Path, help="a PNG that ComfyUI saved, or a workflow in API or UI format")
    one.add_argument(
        "--node-table",
        default=default,
        metavar="URL|FILE",
        help=f"a running ComfyUI, or a saved answer of its /object_info {which}",
    )


def _add_plan_options(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--out", required=True, metavar="FOLDER", help="the output folder, one a run")
    plan.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="ADDRESS=VALUE",
        help="a value for all rows; or a value a row: @FILE:COLUMN (CSV, JSONL, Parquet), @[1, 2, 3], @seed:1000+i",
    )
    plan.add_argument(
        "--images", action="append", default=[], metavar="[ADDRESS=]FOLDER", help="a row for each picture of a folder"
    )
    plan.add_argument("--product", action="store_true", help="every value with every other, instead of side by side")
    plan.add_argument(
        "--comfyui",
        type=Path,
        metavar="FOLDER",
        help="the ComfyUI that runs the rows; refuses to go on after its model files have changed",
    )


def show_inputs(options: argparse.Namespace) -> int:
    nodes = load_node_table(options.node_table)
    settings = Settings(read_workflow(options.workflow, nodes, datetime.now().astimezone()), nodes)
    lines = [(settings.best_address(one), _kind(one), _shown(one.value)) for one in settings.all]
    widths = [max((len(line[at]) for line in lines), default=0) for at in (0, 1)]
    for address, kind, value in lines:
        print(f"{address:{widths[0]}}  {kind:{widths[1]}}  {value}")
    return 0


def _kind(setting: Setting) -> str:
    spec = setting.spec
    if spec.is_picture:
        return "picture"
    if spec.type == "COMBO":
        more = ", ..." if len(spec.choices) > SHOWN_CHOICES else ""
        return f"one of {', '.join(str(one) for one in spec.choices[:SHOWN_CHOICES])}{more}"
    least, most = spec.settings.get("min"), spec.settings.get("max")
    return spec.type if least is None or most is None else f"{spec.type} {least} to {most}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 4]} ..."


def plan_run(options: argparse.Namespace) -> int:
    nodes, store = load_node_table(options.node_table), open_store(options.out)
    request = Request(options.workflow, options.sets, options.images, options.product, options.comfyui)
    manifest = make_plan(request, nodes, store).manifest
    found = progress(store, manifest.rows)
    print(
        f"{manifest.rows} rows, {found.done} done, {found.failed} failed, {found.left} left. The plan is in {options.out}."
    )
    return 0


def show_status(options: argparse.Namespace) -> int:
    store = open_store(options.out)
    found = progress(store, manifest_of(store).rows)
    print(f"{found.rows} rows, {found.done} done, {found.failed} failed, {found.left} left")
    for shard, driver in drivers(store):
        print(f"a driver of shard {shard}: process {driver.process} on {driver.machine.split()[0]}")
    for shown, record in enumerate(failures(store, found)):
        if shown == SHOWN_FAILURES:
            print(f"and {found.failed - shown} more that failed")
            break
        print(f"row {record.index + 1} failed: {record.error}")
    return 1 if found.failed else 0


def verify(options: argparse.Namespace) -> int:
    store = open_store(options.out)
    rows, count = manifest_of(store).rows, 0
    for fault in faults(store, rows):
        print(fault)
        count += 1
    print(f"{progress(store, rows).done} of {rows} rows are done; {count} faults")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
