"""What every KV allocator costs: requests per CPU-second on the Azure trace, and with blocks hashed on Mooncake's.

    python benchmarks/memory.py [NAME...] [--repeat N]

Llama-3.1-8B on one H100. The Azure conversation trace at four times its rate under each allocator's defaults, under
some of its other ways, and with a CPU tier; it has no ``hash_ids``, so that nothing is shared. Then Mooncake's
synthetic trace at its own rate with blocks of 512 tokens, each of which has a hash. ``ratio`` is what a request costs
in bare SimPy timeouts of the same run. Needs ``SERVSIM_DATA``; a trace that is not there is left out, saying so.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from speed import azure_trace, loop_cpu_s, one_h100, timeouts_per_cpu_s

AZURE_PER_CPU_S, MOONCAKE_PER_CPU_S = 5000, 2000  # targets
CPU = "instance.memory.tiers={cpu: {capacity: 512 GiB, link: pcie-gen5-x16}}"
# Longest request of the trace, rounded up: contiguous would reserve the model's 131,072 positions.
LONGEST = "instance.max_model_len=16384"
AZURE = {
    "contiguous": [LONGEST],
    "contiguous, oracle": [LONGEST, "instance.memory.reserve=oracle"],
    "contiguous, buddy": [LONGEST, "instance.memory.reserve=oracle", "instance.memory.placement=buddy"],
    "paged": [],
    "bounded": [],
    "vattention": [],
    "vattention, 64 KiB": ["instance.memory.page_size=64 KiB"],
    "prefix_blocks": [],
    "radix": [],
    "pensieve": [],
    "prefix_blocks, cpu": [CPU],
    "pensieve, cpu": [CPU],
}
BLOCKS = "instance.memory.block_size=512"
MOONCAKE = {
    "paged": [BLOCKS],
    "prefix_blocks": [BLOCKS],
    "radix": [BLOCKS],
    "prefix_blocks, cpu": [BLOCKS, CPU],
}


def mooncake_trace() -> dict[str, Any] | None:
    """Mooncake's synthetic trace, where there is one."""
    data = os.environ.get("SERVSIM_DATA")
    path = Path(data or "") / "traces" / "mooncake_synthetic.jsonl"
    return {"trace": str(path), "format": "mooncake"} if data and path.is_file() else None


def main() -> int:
    """Measure every row, or those whose allocator is named, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="allocators; all by default")
    parser.add_argument("--repeat", type=int, default=2)
    asked = parser.parse_args()
    azure, mooncake = azure_trace(), mooncake_trace()
    traces = [
        ("Azure, four times its rate", azure and {**azure, "time_scale": 0.25}, AZURE, AZURE_PER_CPU_S),
        ("Mooncake, 512-token blocks", mooncake, MOONCAKE, MOONCAKE_PER_CPU_S),
    ]
    bare = max(timeouts_per_cpu_s() for _ in range(3))
    print(f"bare SimPy: {bare:,.0f} timeouts a CPU-second\n")
    print("| trace | allocator | requests/CPU-s | ratio | |")
    print("|---|---|---|---|---|")
    for title, workload, rows, target in traces:
        if workload is None:
            print(f"| {title} | skipped: not under SERVSIM_DATA | | | |")
            continue
        for name, settings in rows.items():
            allocator, _, more = name.partition(", ")
            if asked.names and allocator not in asked.names:
                continue
            overrides = [f"instance.memory.allocator={allocator}", *settings]
            tries = [loop_cpu_s(one_h100(workload), overrides) for _ in range(asked.repeat)]
            count, cpu_s = min(tries, key=lambda found: found[1])
            speed = count / cpu_s
            below = f"below the target of {target:,}" if speed < target else ""
            words = f"`{allocator}`, {more}" if more else f"`{allocator}`"
            print(f"| {title} | {words} | {speed:,.0f} | {bare / speed:,.0f} | {below} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
