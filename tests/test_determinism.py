"""The same scenario, seed and version give the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import servsim

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_determinism import digest, scenario
import servsim
for policy in ("fcfs", "sjf", "past_future"):
    out = Path({out!r}) / policy
    servsim.simulate(scenario(policy), out=out)
    print(policy, digest(out))
"""


def scenario(policy: str, seed: int = 7) -> dict[str, Any]:
    """Several instances, classes and streams; memory so tight that sequences are preempted."""
    predictor = {"predictor": {"name": "lognormal_noise", "sigma": 1.0}} if policy == "sjf" else {}
    return {
        "name": "twice",
        "seed": seed,
        "model": "llama-3.1-8b",
        "instances": 3,
        "router": "random",
        "instance": {
            "hardware": "h100-sxm",
            "max_model_len": 2048,
            "scheduler": {"policy": policy, "max_num_seqs": 32, "max_num_batched_tokens": 512, **predictor},
            "memory": {"num_blocks": 140},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 60},
            "classes": [
                {"name": name, "share": share, "tenant": tenant, "lengths": {
                    "prompt_tokens": {"distribution": "lognormal", "median": median, "sigma": 1.0, "max": 1000},
                    "output_tokens": {"distribution": "geometric", "mean": 80},
                }}
                for name, share, tenant, median in [("chat", 3, "a", 100), ("code", 1, "b", 400), ("agent", 1, "a", 50)]
            ],
            "num_requests": 150,
        },
        "slo": {"chat": {"ttft_s": 1.0}, "code": {"e2e_s": 5.0}},
    }  # fmt: skip


def digest(folder: Path) -> str:
    """Of all files in a result folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def tables(records: Any) -> list[bytes]:
    return [
        column.tobytes() for table in ("requests", "strides", "pauses") for column in getattr(records, table).values()
    ]


@pytest.mark.parametrize("policy", ["fcfs", "sjf", "past_future"])
def test_the_same_seed_gives_the_same_records_and_another_one_others(policy: str) -> None:
    first, again, other = (servsim.simulate(scenario(policy, seed)) for seed in (7, 7, 8))
    assert tables(first.records) == tables(again.records)
    assert first.summary == again.summary
    assert tables(first.records) != tables(other.records)


def test_policies_are_compared_on_the_same_requests_sent_to_the_same_instances() -> None:
    columns = ["arrival_s", "prompt_tokens", "output_tokens", "tenant", "slo_class", "instance"]
    runs = [servsim.simulate(scenario(policy)).records.requests for policy in ("fcfs", "sjf", "past_future")]
    for name in columns:
        assert runs[0][name].tobytes() == runs[1][name].tobytes() == runs[2][name].tobytes()
    assert runs[0]["preemptions"].sum() > 0
    assert len({run["finish_s"].tobytes() for run in runs}) == 3


def test_result_files_are_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    printed = set()
    for hash_seed in ("0", "1", "4711"):
        out = tmp_path / hash_seed
        program = PROGRAM.format(here=str(Path(__file__).parent), out=str(out))
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        root = Path(servsim.__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1
    assert printed.pop().count("\n") == 3
