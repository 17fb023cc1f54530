"""The command `profile`: where the time goes, as traces and tables of operators; never a verdict.

The profiler is a diagnosis, not a clock: it adds its own cost to every operator and may lose
kernels. Every call is recorded under the name `variant/implementation`.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from harness.benchmark import describe_run
from harness.case import ConvCase
from harness.machine import choose_device
from harness.plan import DIRECTIONS, Cell, Selection, make_plan
from harness.proof import Call
from harness.results import Recorder, ResultsError, load_run
from harness.table import Table
from harness.tensors import make_tensors
from harness.terminal import Progress, write_lines
from harness.timeline import kernel_table, memory_curve, timeline

WARM_UP_CALLS = 3
CALLS = 5
# On current traces of CUDA devices: the library knows only the older word, and would count 0.
RUNTIME_CATEGORIES = ("cuda_runtime", "cuda_driver")
LONGEST_TABLE = 40

Operator = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `profile`."""
    several: dict[str, Any] = {"action": "append", "default": []}
    add = parser.add_argument
    add("--variant", **several, help="only this variant")
    add("--implementation", **several, help="only this one, beside the baseline")
    add("--case", **several, metavar="NAME|DESCRIPTOR", help="instead of the first quick case")
    add("--direction", choices=DIRECTIONS, default="backward", help="backward holds forward too")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, default=1, metavar="T")
    add("--full", action="store_true", help="all cases, and compiled forms")
    add("--into", metavar="RUN", help="add the tables to this run's page")
    add("--plugin", **several, metavar="FILE|MODULE", help="more implementations")
    add("--out", type=Path, default=Path("results"), metavar="DIR", help="where results go")
    add("--traces", type=Path, default=Path("traces"), metavar="DIR", help="where traces go")


def run(args: argparse.Namespace, table: Table) -> int:
    """Write traces and `profile.json`; return 0.

    Raises:
        CaseError, UnknownName: bad input.
        ResultsError: a folder that cannot be written or read.
    """
    device = choose_device(args.device)
    torch.set_num_threads(args.threads)
    selection = Selection(
        variants=tuple(args.variant), implementations=tuple(args.implementation),
        cases=tuple(args.case), directions=(args.direction,), full=args.full, device=device,
        threads=(args.threads,),
    )  # fmt: skip
    plan = make_plan(table, selection)
    cells = list(dict.fromkeys(cell.proved_as for cell in plan.cells if not cell.placebo))
    if not args.full and not args.case:
        first = {variant.name: str(table.case(variant, variant.quick[0])[1])
                 for variant in table.variants.values() if variant.quick}  # fmt: skip
        cells = [cell for cell in cells if first.get(cell.variant) == cell.case]
    folder = _folder(args, table, plan.baselines, device)
    traces = args.traces / folder.name
    entries = []
    with Progress() as progress:
        for number, cell in enumerate(cells):
            progress.show(number / len(cells), f"{cell.variant}/{cell.implementation}")
            try:
                trace = record(table, cell, traces, device)
            except OSError as error:
                raise ResultsError(f"{traces}: cannot be written: {error.strerror}") from error
            except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything at all
                progress.say(f"{cell.variant}/{cell.implementation} failed: {error}")
                continue
            entries.append(
                {
                    "variant": cell.variant,
                    "implementation": cell.implementation,
                    "case_name": cell.case_name or cell.case,
                    "operators": trace[:LONGEST_TABLE],
                    **_from_trace(cell, traces),
                }
            )
    Recorder(folder).write_profile(entries)
    source = "torch-tb-profiler" if _has_library() else "torch.profiler"
    write_lines([f"traces: {traces}", f"operator tables by {source}: {folder / 'profile.json'}"])
    return 0


def _folder(
    args: argparse.Namespace, table: Table, baselines: Mapping[str, str], device: str
) -> Path:
    if args.into:
        folder = Path(args.into) if Path(args.into).exists() else args.out / args.into
        load_run(folder)
        return Path(folder)
    description = describe_run(
        table, baselines, argv=("python3", "-m", "harness", "profile"), device=device, threads=args.threads,
        notes=("a profile: nothing was timed",),
    )  # fmt: skip
    folder = args.out / description.id
    Recorder(folder).write_run(description)
    return Path(folder)


def record(table: Table, cell: Cell, traces: Path, device: str) -> list[Operator]:
    """Profile one cell, leave its trace in `traces` and return its operators."""
    variant, case = table.variant(cell.variant), ConvCase.parse(cell.case)
    implementation = table.implementation(variant, cell.implementation)
    call = Call(variant, implementation, case, cell.direction)
    bound = call.bind(make_tensors(variant, case, device))
    name = f"{cell.variant}/{cell.implementation}"
    activities = [ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(ProfilerActivity.CUDA)
    traces.mkdir(parents=True, exist_ok=True)
    worker = _worker(cell)
    handler = tensorboard_trace_handler(str(traces), worker_name=worker)
    with torch.set_grad_enabled(call.backward):
        for _ in range(WARM_UP_CALLS):
            call(bound)
        # Stacks would cost much and give rows of negative time.
        with profile(
            activities=activities, record_shapes=True, profile_memory=True, with_stack=False,
            on_trace_ready=handler,
        ) as profiler:  # fmt: skip
            for _ in range(CALLS):
                with record_function(name):
                    call(bound)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
    if not _has_library():
        return operators_of_torch(profiler.key_averages())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.json"
        text = _newest(traces, worker).read_text(encoding="utf-8")
        return operators_of_trace(json.loads(text), path)


def _from_trace(cell: Cell, traces: Path) -> dict[str, Any]:
    """Return the name of the newest trace of a cell, and what it says of a call."""
    newest = _newest(traces, _worker(cell))
    trace = json.loads(newest.read_text(encoding="utf-8"))
    name = f"{cell.variant}/{cell.implementation}"
    return {
        "trace": newest.name, "timeline": timeline(trace, name),
        "kernels": kernel_table(trace)[:LONGEST_TABLE], "memory": memory_curve(trace, name),
    }  # fmt: skip


def _worker(cell: Cell) -> str:
    return f"{cell.variant}.{cell.implementation}.{cell.case_name or 'case'}.{cell.direction}"


def _newest(traces: Path, worker: str) -> Path:
    return max(traces.glob(f"{worker}.*.pt.trace.json"), key=lambda p: p.stat().st_mtime_ns)


def operators_of_trace(trace: Mapping[str, Any], path: Path) -> list[Operator]:
    """Return the operator table that torch-tb-profiler makes of a trace, costliest first.

    Args:
        trace: A chrome trace of torch.profiler.
        path: Where the library may believe the trace to be.
    """
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library is no longer maintained; pandas has moved on
        data = RunProfileData.from_json("worker", "1", with_known_categories(trace))
        data.trace_file_path = str(path)
        found = RunGenerator("worker", "1", data).generate_run_profile()
    return [
        {
            "name": row["name"],
            "calls": int(row["calls"]),
            "self_ns": int(row["host_self_duration"] * 1000),  # the library counts microseconds
            "device_ns": int(row.get("device_self_duration", 0) * 1000),
        }
        for row in found.operation_table_by_name["data"]
    ]


def with_known_categories(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a trace in which calls of the CUDA runtime have the category `Runtime`."""
    fixed = copy.deepcopy(dict(trace))
    for event in fixed["traceEvents"]:
        if event.get("cat") in RUNTIME_CATEGORIES:
            event["cat"] = "Runtime"
    return fixed


def operators_of_torch(averages: Iterable[Any]) -> list[Operator]:
    """Return the operator table of `torch.profiler`'s own averages, costliest first."""
    rows = [
        {
            "name": str(row.key),
            "calls": int(row.count),
            "self_ns": int(row.self_cpu_time_total * 1000),
            "device_ns": int(row.self_device_time_total * 1000),
        }
        for row in averages
    ]
    return sorted(rows, key=lambda row: (-row["device_ns"], -row["self_ns"], row["name"]))


def _has_library() -> bool:
    return importlib.util.find_spec("torch_tb_profiler") is not None
