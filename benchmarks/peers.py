"""The same trace through servsim and through the fastest peer, for whoever doubts the speed figure of the README.

    python benchmarks/peers.py [--repeat N] [--trace AZURE_CSV] [--json FILE]

The peer is NVIDIA's AISimulate (a Rust core, Apache-2.0). The first call installs it (1.6 GB) into ``.venv-peers``
beside the checkout's ``.venv``, because it pins versions that servsim does not want; it is never imported here. Both
replay the conversation trace that Azure published in 2023: Llama-3.1-8B on one H100, vLLM's scheduler, the same limits
on a batch, the same block size. Each command is measured as a user would run it, from start to written results, and
the two take turns. Where the comparison could lean, it leans to the peer: prefix caching is off, since no two prompts
share anything, and it writes only a summary, while servsim writes a row a request and a row a stride.

The mean TTFTs are not the same: for a step that holds a prompt and decodes, AISimulate adds the times of a prefill step
and of a decode step, where servsim lets them share one pass over the weights. Of prompts of 512 to 4096 tokens served
alone the two agree within 2 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# Nothing heavy may be imported here: on Linux a child's peak memory is never less than what its parent had held.

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
PEER_BIN = PEERS / "bin"
PACKAGE = "aisimulate"
TOKENS_PER_HASH = 512  # of the Mooncake trace format
AZURE_COLUMNS = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS, BLOCK_SIZE, MEMORY_UTILIZATION = 256, 2048, 16, 0.9


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a command took, its own children included."""

    cpu_s: float  # user and system
    wall_s: float
    peak_mib: float  # of its largest process


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulator says about the run, to see that both did the same job."""

    requests: float
    output_tokens: float
    duration_s: float
    ttft_ms: float
    tpot_ms: float
    e2e_ms: float


def peer_environment() -> dict[str, str]:
    """The environment variables, without those that would let packages of servsim's into the peer's Python."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def install_peer() -> None:
    """Make the environment of the peer, unless it is there; exits with a message where that fails."""
    if (PEER_BIN / PACKAGE).exists():
        return
    print(f"installing {PACKAGE} into {PEERS.name} (once)", file=sys.stderr)
    pip = [str(PEER_BIN / "python"), "-m", "pip", "install", "--quiet", "--pre", "--only-binary=:all:", PACKAGE]
    for command in ([sys.executable, "-m", "venv", str(PEERS)], pip):
        status = subprocess.run(command, stdout=sys.stderr, env=peer_environment()).returncode
        if status:
            sys.exit(
                f"{PACKAGE} could not be installed: '{' '.join(command)}' ended with status {status}, see above\n"
                "  it needs a package index within reach, binary wheels for this machine and Python 3.11 to 3.13 (this "
                f"is {platform.python_version()}); nothing else of servsim depends on it"
            )


def peer_version() -> str:
    """The version of the peer that is installed."""
    code = f"import importlib.metadata as metadata; print(metadata.version({PACKAGE!r}))"
    return printed_by([str(PEER_BIN / "python"), "-c", code], peer_environment())


def own_version() -> str:
    """The version of servsim, asked of a process of its own."""
    code = "from servsim.version import VERSION; print(VERSION)"
    return printed_by([sys.executable, "-c", code])


def printed_by(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a short command prints."""
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return found.stdout.strip()


def find_trace(given: Path | None) -> Path:
    """The trace that was asked for, or the one under SERVSIM_DATA; exits with a message where there is none."""
    data = os.environ.get("SERVSIM_DATA")
    if given is None and not data:
        sys.exit("no trace: set SERVSIM_DATA to a folder that holds traces/azure_conv_2023.csv, or give one by --trace")
    path = given or Path(data or "") / "traces" / "azure_conv_2023.csv"
    if not path.is_file():
        sys.exit(f"{path}: no such file; the conversation trace of Azure's LLM inference dataset 2023 is wanted here")
    return path.resolve()


def write_mooncake(trace: Path, out: Path) -> int:
    """Rewrite an Azure trace as Mooncake JSONL, no prompt sharing a block with another; returns the requests."""
    hashes = count = 0
    first: datetime | None = None
    with trace.open(newline="", encoding="utf-8") as rows, out.open("w", encoding="utf-8") as lines:
        table = csv.DictReader(rows)
        if AZURE_COLUMNS - {*(table.fieldnames or ())}:
            sys.exit(f"{trace}: not an Azure trace; its columns should be {', '.join(sorted(AZURE_COLUMNS))}")
        for row in table:
            arrival = datetime.fromisoformat(row["TIMESTAMP"])
            first = first or arrival
            prompt_tokens = int(row["ContextTokens"])
            blocks = math.ceil(prompt_tokens / TOKENS_PER_HASH)
            request = {
                "timestamp": (arrival - first).total_seconds() * 1e3,
                "input_length": prompt_tokens,
                "output_length": int(row["GeneratedTokens"]),
                "hash_ids": list(range(hashes, hashes + blocks)),
            }
            lines.write(json.dumps(request) + "\n")
            hashes += blocks
            count += 1
    return count


def peer_scenario(mooncake: Path) -> dict[str, Any]:
    """The job in the peer's words."""
    worker = {
        "scheduler": {"max_sequences": MAX_NUM_SEQS, "max_batched_tokens": MAX_NUM_BATCHED_TOKENS},
        "kv_cache": {
            "block_size": BLOCK_SIZE,
            "prefix_caching": False,
            "capacity": {"type": "default", "memory_fraction": MEMORY_UTILIZATION},
        },
    }
    source = {"type": "trace", "format": "mooncake", "paths": [str(mooncake)], "block_size": TOKENS_PER_HASH}
    return {
        "traffic": {"source": source, "load": {"type": "trace_timestamps"}},
        "engine": {
            "mode": "aggregated",
            "model": "meta-llama/Meta-Llama-3.1-8B",
            "hardware": "h100_sxm",
            "backend": "vllm",
            "workers": {"aggregated": worker},
        },
    }


def own_scenario(trace: Path) -> dict[str, Any]:
    """The job in servsim's words."""
    limits = {"max_num_seqs": MAX_NUM_SEQS, "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS}
    memory = {"allocator": "paged", "block_size": BLOCK_SIZE, "gpu_memory_utilization": MEMORY_UTILIZATION}
    return {
        "name": "peers",
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "scheduler": {"policy": "fcfs", **limits}, "memory": memory},
        "workload": {"trace": str(trace), "format": "azure"},
    }


def measure(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end; exits with what it printed where it fails."""
    with log.open("wb") as output:
        begun = time.monotonic()
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        child = subprocess.Popen(command, cwd=ROOT, env=environment, **streams)
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        printed = log.read_text(encoding="utf-8", errors="replace")
        sys.exit(f"'{' '.join(command)}' ended with status {child.returncode}:\n{printed[-2000:]}")
    per_mib = 1 << (20 if sys.platform == "darwin" else 10)  # macOS counts bytes, Linux KiB
    return Cost(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / per_mib)


def peer_outcome(folder: Path) -> Outcome:
    """What the peer wrote."""
    report = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))
    return Outcome(
        requests=report["completed_requests"],
        output_tokens=report["total_output_tokens"],
        duration_s=report["duration_ms"] / 1e3,
        ttft_ms=report["mean_ttft_ms"],
        tpot_ms=report["mean_tpot_ms"],
        e2e_ms=report["mean_e2e_latency_ms"],
    )


def own_outcome(folder: Path) -> Outcome:
    """What servsim wrote."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Outcome(
        requests=summary["counts"]["finished"],
        output_tokens=summary["tokens"]["output_tokens"],
        duration_s=summary["duration_s"],
        ttft_ms=summary["ttft_s"]["mean"] * 1e3,
        tpot_ms=summary["tpot_s"]["mean"] * 1e3,
        e2e_ms=summary["e2e_s"]["mean"] * 1e3,
    )


def compare(trace: Path, repeat: int, folder: Path) -> dict[str, tuple[list[Cost], Outcome]]:
    """Both simulators in turn, ``repeat`` times each."""
    mooncake, own, peer = folder / "trace.jsonl", folder / "servsim.yaml", folder / "peer.yaml"
    requests = write_mooncake(trace, mooncake)
    own.write_text(json.dumps(own_scenario(trace)), encoding="utf-8")  # JSON is YAML
    peer.write_text(json.dumps(peer_scenario(mooncake)), encoding="utf-8")
    servsim = [sys.executable, "-c", "from servsim.cli import main; main()", "run", str(own)]
    aisimulate = [str(PEER_BIN / PACKAGE), "predict", "--config", str(peer)]
    costs: dict[str, list[Cost]] = {"servsim": [], PACKAGE: []}
    for turn in range(repeat):
        print(f"{requests:,} requests, run {turn + 1} of {repeat}", file=sys.stderr)
        command = [*servsim, "--out", str(folder / f"own{turn}")]
        costs["servsim"].append(measure(command, folder / "log"))
        command = [*aisimulate, "--output-dir", str(folder / f"peer{turn}")]
        costs[PACKAGE].append(measure(command, folder / "log", peer_environment()))
    return {
        "servsim": (costs["servsim"], own_outcome(folder / "own0")),
        PACKAGE: (costs[PACKAGE], peer_outcome(folder / "peer0")),
    }


COSTS = {"CPU seconds": ("cpu_s", ".2f"), "wall seconds": ("wall_s", ".2f"), "peak memory, MiB": ("peak_mib", ".0f")}
OUTCOMES = {
    "requests finished": ("requests", ",.0f"),
    "output tokens": ("output_tokens", ",.0f"),
    "simulated seconds": ("duration_s", ",.1f"),
    "mean TTFT, ms": ("ttft_ms", ",.2f"),
    "mean TPOT, ms": ("tpot_ms", ",.2f"),
    "mean E2E, ms": ("e2e_ms", ",.1f"),
}


def print_table(found: dict[str, tuple[list[Cost], Outcome]]) -> None:
    """Costs by run with median and ratio of the medians, then what was simulated."""
    (own_costs, own_outcome), (peer_costs, peer_outcome) = found["servsim"], found[PACKAGE]
    print(f"{'':18} {'servsim':>22} {'median':>8} {PACKAGE:>26} {'median':>8} {'peer/servsim':>13}")
    for label, (name, form) in COSTS.items():
        own, peer = ([getattr(cost, name) for cost in costs] for costs in (own_costs, peer_costs))
        runs = ["  ".join(format(value, form) for value in values) for values in (own, peer)]
        medians = [statistics.median(values) for values in (own, peer)]
        shown = [format(median, form) for median in medians]
        ratio = medians[1] / medians[0]
        print(f"{label:18} {runs[0]:>22} {shown[0]:>8} {runs[1]:>26} {shown[1]:>8} {ratio:13.2f}")
    print(f"\n{'what was simulated':18} {'servsim':>22} {'':8} {PACKAGE:>26} {'':8} {'peer/servsim':>13}")
    for label, (name, form) in OUTCOMES.items():
        values = [getattr(outcome, name) for outcome in (own_outcome, peer_outcome)]
        shown = [format(value, form) for value in values]
        print(f"{label:18} {shown[0]:>22} {'':8} {shown[1]:>26} {'':8} {values[1] / values[0]:13.3f}")


def main() -> None:
    """Install, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; 3 by default")
    parser.add_argument("--trace", type=Path, help="an Azure trace; default: $SERVSIM_DATA/traces/azure_conv_2023.csv")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    asked = parser.parse_args()
    if asked.repeat < 1:
        parser.error("--repeat: at least 1")
    trace = find_trace(asked.trace)
    install_peer()
    versions = {"servsim": own_version(), PACKAGE: peer_version(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="servsim-peers-") as folder:
        found = compare(trace, asked.repeat, Path(folder))
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end=", ")
    print(f"{platform.machine()} with {os.cpu_count()} cores; Llama-3.1-8B on one H100, {trace.name}\n")
    print_table(found)
    if asked.json:
        runs = {name: {"runs": [asdict(c) for c in costs], **asdict(said)} for name, (costs, said) in found.items()}
        asked.json.write_text(json.dumps({"versions": versions, **runs}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
