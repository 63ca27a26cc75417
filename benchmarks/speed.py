"""Speed and memory of servsim, beside bare SimPy timeouts in the same run.

    python benchmarks/speed.py [NAME...] [--repeat N] [--json FILE]

Without names everything is measured. CPU time is counted, not wall time, and every figure is the best
of ``--repeat`` tries: machines are shared, and noise only ever adds. ``ratio`` is what a
request costs in bare SimPy timeouts, which carries over to other machines. What needs the real traces is
skipped, saying so, where ``SERVSIM_DATA`` is not set.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import simpy

from servsim.scenario import load_scenario
from servsim.simulation import Simulation

Row = dict[str, Any]
TIMEOUTS = 300_000


def timeouts_per_cpu_s() -> float:
    """How many timeouts a lone SimPy process waits for in a CPU-second."""

    def wait(env: simpy.Environment) -> Any:
        for _ in range(TIMEOUTS):
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(wait(env))
    begun = time.process_time()
    env.run()
    return TIMEOUTS / (time.process_time() - begun)


def loop_cpu_s(scenario: dict[str, Any], overrides: list[str]) -> tuple[int, float]:
    """Requests, and CPU seconds of the simulation loop alone: facts recorded, nothing summed up or written."""
    simulation = Simulation(load_scenario(scenario, overrides))
    gc.collect()
    begun = time.process_time()
    records = simulation.run()
    return len(records.requests["request_id"]), time.process_time() - begun


def one_h100(workload: dict[str, Any]) -> dict[str, Any]:
    """Llama-3.1-8B on one H100."""
    return {"name": "speed", "model": "llama-3.1-8b", "instance": {"hardware": "h100-sxm"}, "workload": workload}


def azure_trace() -> dict[str, Any] | None:
    """The Azure 2023 conversation trace, where there is one."""
    data = os.environ.get("SERVSIM_DATA")
    path = Path(data or "") / "traces" / "azure_conv_2023.csv"
    return {"trace": str(path), "format": "azure"} if data and path.is_file() else None


def chat(count: int, rate_per_s: float, output: float) -> dict[str, Any]:
    """Poisson arrivals of chat-like lognormal lengths; ``output`` is the median."""
    return {
        "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
        "lengths": {
            "prompt_tokens": {"distribution": "lognormal", "median": 512, "sigma": 0.8, "max": 8192},
            "output_tokens": {"distribution": "lognormal", "median": output, "sigma": 0.6, "max": 16384},
        },
        "num_requests": count,
        "max_tokens": 16384,
    }


def loop_row(name: str, target: str, scenario: dict[str, Any], overrides: list[str], repeat: int) -> Row:
    """One line about the simulation loop."""
    tries = [loop_cpu_s(scenario, overrides) for _ in range(repeat)]
    count, cpu_s = min(tries, key=lambda found: found[1])
    return {"name": name, "target": target, "requests": count, "cpu_s": cpu_s, "per_cpu_s": count / cpu_s}


def azure_loop(name: str, target: str, policy: str, *settings: str) -> Callable[[int], list[Row]]:
    """The loop on the Azure trace under a policy."""

    def measure(repeat: int) -> list[Row]:
        trace = azure_trace()
        if trace is None:
            return [{"name": name, "skipped": "SERVSIM_DATA is not set, or has no traces/azure_conv_2023.csv"}]
        overrides = [f"instance.scheduler.policy={policy}", *settings]
        return [loop_row(name, target, one_h100(trace), overrides, repeat)]

    return measure


def strided_against_single(repeat: int) -> list[Row]:
    """Long outputs (2k-8k tokens) at light load: how much a stride saves."""
    lengths = {
        "prompt_tokens": {"distribution": "lognormal", "median": 512, "sigma": 0.8, "max": 8192},
        "output_tokens": {"distribution": "uniform", "min": 2048, "max": 8192},
    }
    workload = {"arrivals": {"process": "poisson", "rate_per_s": 0.1}, "lengths": lengths, "num_requests": 1000}
    strided = loop_row("long outputs, strided", "", one_h100(workload), [], repeat)
    single = loop_row("long outputs, single", "", one_h100(workload), ["instance.stepping=single"], 1)
    single["note"] = f"strided is {single['cpu_s'] / strided['cpu_s']:.1f} times as fast (target: 8)"
    return [strided, single]


def ten_times_longer(repeat: int) -> list[Row]:
    """Ten times longer outputs at the rate that keeps the mean number running."""
    short = loop_row("outputs of about 150", "", one_h100(chat(20_000, 10.0, 150)), [], repeat)
    # Decode time dominates the time in the system, so a tenth of the rate keeps about as many running.
    long = loop_row("ten times longer, a tenth of the rate", "", one_h100(chat(20_000, 1.0, 1500)), [], repeat)
    long["note"] = f"{long['cpu_s'] / short['cpu_s']:.2f} times the cost a request (target: at most 1.3)"
    return [short, long]


def million(repeat: int) -> list[Row]:
    """10,000 and 1,000,000 requests: cost a request, and memory, each in a process of its own."""
    rows = []
    for count in (10_000, 1_000_000):
        code = (
            "import resource, sys; sys.path.insert(0, sys.argv[1]); import speed\n"
            f"count, cpu_s = speed.loop_cpu_s(speed.one_h100(speed.chat({count}, 10.0, 150)), [])\n"
            "print(count, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        cpu_s, peak_gib = float(found[1]), int(found[2]) / (1 << 20)
        row = {"name": f"{count:,} synthetic requests", "requests": count, "cpu_s": cpu_s, "per_cpu_s": count / cpu_s}
        rows.append({**row, "note": f"peak {peak_gib:.2f} GiB (target: 1.5)" if count > 10_000 else ""})
    return rows


def command_cpu_s(arguments: list[str]) -> float:
    """CPU seconds of a servsim command, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from servsim.cli import main; main()", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def whole_command(repeat: int) -> list[Row]:
    """``servsim run`` on the Azure trace, from start to written results; and ``servsim --help``."""
    rows: list[Row] = []
    help_s = min(command_cpu_s(["--help"]) for _ in range(repeat))
    rows.append({"name": "servsim --help", "cpu_s": help_s, "target": "0.3 CPU-s"})
    trace = azure_trace()
    if trace is None:
        return [*rows, {"name": "servsim run, Azure trace", "skipped": "SERVSIM_DATA is not set"}]
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder) / "azure.yaml"
        scenario.write_text(json.dumps(one_h100(trace)))
        arguments = ["run", str(scenario), "--out", str(Path(folder) / "out"), "--overwrite"]
        run_s = min(command_cpu_s(arguments) for _ in range(repeat))
    rows.append({"name": "servsim run, Azure trace", "requests": 19366, "cpu_s": run_s, "target": "2.5 CPU-s"})
    return rows


QUADRUPLE = "workload.time_scale=0.25"
BENCHMARKS: dict[str, Callable[[int], list[Row]]] = {
    "fcfs": azure_loop("Azure trace, fcfs + paged", "20,000/s", "fcfs"),
    "sjf": azure_loop("four times its rate, sjf", "20,000/s", "sjf", QUADRUPLE),
    "past_future": azure_loop("four times its rate, past_future", "10,000/s", "past_future", QUADRUPLE),
    "past_future_binding": azure_loop(
        "the same in 8,000 blocks", "5,000/s", "past_future", QUADRUPLE, "instance.memory.num_blocks=8000"
    ),
    "command": whole_command,
    "strides": strided_against_single,
    "longer": ten_times_longer,
    "million": million,
}


def main() -> None:
    """Measure what was asked for and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    asked = parser.parse_args()
    unknown = sorted({*asked.names} - {*BENCHMARKS})
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    bare = max(timeouts_per_cpu_s() for _ in range(3))
    print(f"bare SimPy: {bare:,.0f} timeouts a CPU-second\n")
    print(f"{'':40} {'requests':>9} {'CPU-s':>8} {'requests/CPU-s':>15} {'ratio':>7}  target")
    rows: list[Row] = []
    for name in asked.names or BENCHMARKS:
        for row in BENCHMARKS[name](asked.repeat):
            rows.append(row)
            print(line_of(row, bare), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"timeouts_per_cpu_s": bare, "rows": rows}, indent=2) + "\n")


def line_of(row: Row, bare: float) -> str:
    """A row of the table."""
    if "skipped" in row:
        return f"{row['name']:40} skipped: {row['skipped']}"
    speed = row.get("per_cpu_s")
    figures = f"{speed:15,.0f} {bare / speed:7.0f}" if speed else " " * 23
    count = f"{row['requests']:9,}" if "requests" in row else " " * 9
    return f"{row['name']:40} {count} {row['cpu_s']:8.3f} {figures}  {row.get('target') or row.get('note', '')}"


if __name__ == "__main__":
    main()
