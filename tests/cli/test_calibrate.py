"""``servsim calibrate``: errors shown, a device file written when asked for, and never over another one unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "servsim", "calibrate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    rows = ["op_name,gemm_dtype,m,n,k,latency,framework,version,device"]
    for m in (1, 16, 64, 200, 1000, 4000):
        for n in (512, 2048, 9000):
            for k in (512, 2048, 4096):
                latency = 1e3 * (max(2e-14 * m * n * k, 6e-12 * n * k) + 5e-6)
                rows.append(f"gemm,bfloat16,{m},{n},{k},{latency!r},PyTorch,2.8,Some GPU")
    path = tmp_path / "gemm_perf.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_device_is_fitted_shown_and_written(kernels: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    done = calibrate(str(kernels), "--device", "l4", "--out", str(out), "--source", "my own rig")
    assert done.returncode == 0, done.stderr
    assert "gemm" in done.stdout and "held back" in done.stdout
    text = out.read_text(encoding="utf-8")
    assert "calibrated: true" in text and "my own rig" in text and "PyTorch 2.8 on Some GPU" in text
    again = calibrate(str(kernels), "--device", "l4", "--out", str(out))
    assert again.returncode == 2 and "exists" in again.stderr and "--overwrite" in again.stderr


def test_mistakes_are_named(kernels: Path, tmp_path: Path) -> None:
    done = calibrate(str(kernels), "--device", "l5")
    assert done.returncode == 2 and "l5" in done.stderr and "l4" in done.stderr
    few = tmp_path / "few_perf.csv"
    few.write_text("\n".join(kernels.read_text().splitlines()[:5]) + "\n", encoding="utf-8")
    done = calibrate(str(few), "--device", "l4")
    assert done.returncode == 2 and "too few rows" in done.stderr
    words = tmp_path / "words_perf.csv"
    words.write_text("op_name,gemm_dtype,m,n,k,latency\ngemm,bfloat16,many,256,256,1\n", encoding="utf-8")
    done = calibrate(str(words), "--device", "l4")
    assert done.returncode == 2 and "column m holds words" in done.stderr and "words_perf.csv" in done.stderr
    done = calibrate(str(tmp_path / "nowhere"), "--device", "l4")
    assert done.returncode == 2 and "no such file" in done.stderr
