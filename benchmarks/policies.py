"""What each scheduling policy costs: requests per CPU-second on the Azure trace at four times its rate.

    python benchmarks/policies.py [NAME...] [--repeat N]

Llama-3.1-8B on one H100 with every policy's defaults, the trace with an SLO so that policies which look at one have it.
``ratio`` is what a request costs in bare SimPy timeouts of the same run. Needs ``SERVSIM_DATA``.
"""

from __future__ import annotations

import argparse
import sys

from speed import azure_trace, loop_cpu_s, one_h100, timeouts_per_cpu_s

from servsim import registry

TARGET_PER_CPU_S = 5000


def main() -> int:
    """Measure every policy, or those that are named, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="policies; all by default")
    parser.add_argument("--repeat", type=int, default=2)
    asked = parser.parse_args()
    trace = azure_trace()
    if trace is None:
        print("skipped: SERVSIM_DATA is not set, or has no traces/azure_conv_2023.csv")
        return 0
    scenario = {**one_h100({**trace, "time_scale": 0.25}), "slo": {"ttft_s": 5.0, "tpot_s": 0.05}}
    bare = max(timeouts_per_cpu_s() for _ in range(3))
    print(f"bare SimPy: {bare:,.0f} timeouts a CPU-second\n")
    print("| policy | requests/CPU-s | ratio | |")
    print("|---|---|---|---|")
    for name in asked.names or registry.names("schedulers"):
        tries = [loop_cpu_s(scenario, [f"instance.scheduler.policy={name}"]) for _ in range(asked.repeat)]
        count, cpu_s = min(tries, key=lambda found: found[1])
        speed = count / cpu_s
        below = f"below the target of {TARGET_PER_CPU_S:,}" if speed < TARGET_PER_CPU_S else ""
        print(f"| `{name}` | {speed:,.0f} | {bare / speed:,.0f} | {below} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
