"""The command line called in this process, and a scenario that takes no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from servsim.cli import main

SMALL = """\
name: small
model: llama-3.1-8b
instance:
  hardware: h100-sxm
  scheduler: {policy: fcfs, max_num_seqs: 8, max_num_batched_tokens: 512}
  memory: {num_blocks: 200}
workload:
  arrivals: {process: poisson, rate_per_s: 20}
  lengths:
    prompt_tokens: {distribution: uniform, min: 10, max: 600}
    output_tokens: {distribution: geometric, mean: 40}
  num_requests: 60
slo: {ttft_s: 0.5, tpot_s: 0.02}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def servsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``servsim(*arguments)``; its exit status and what it printed, unfolded."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it

    def call(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err or arguments[0] == "--debug"
        code = left.value.code
        return Ended(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``small.yaml`` in the working directory: 60 requests in a memory that binds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # for commands started as processes of their own
    path = Path("small.yaml")
    path.write_text(SMALL, encoding="utf-8")
    return path
