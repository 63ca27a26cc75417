"""A scenario that needs nothing but its own folder."""

from pathlib import Path

import pytest

CHAT = """\
name: chat
model: ./model.yaml
instance:
  hardware: ./device.yaml
  scheduler:
    policy: fcfs
    max_num_seqs: 256
    max_num_batched_tokens: 2048
  memory: {allocator: paged, block_size: 16}
workload:
  arrivals: {process: poisson, rate_per_s: 10}
  lengths: {prompt_tokens: 512, output_tokens: 128}
  num_requests: 100
slo: {ttft_s: 1.0, tpot_s: 0.05}
"""


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``scenarios/chat.yaml`` below the working directory, with a model and a device beside it."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    for name in ("model.yaml", "device.yaml", "trace.csv"):
        (folder / name).touch()
    (folder / "chat.yaml").write_text(CHAT)
    monkeypatch.chdir(tmp_path)
    return Path("scenarios/chat.yaml")
