"""The measuring script writes tables that calibrate reads; none of it needs a GPU to be tested."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from servsim.calibration import fitted, read_tables, works
from servsim.calibration.blocks import device_text
from servsim.documents import load_document
from servsim.hardware import load_device

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "calibration" / "measure.py"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    asked = measure.parse(["out", "--kinds", "gemm", "copies", "--quick"])
    assert (asked.out, asked.kinds, asked.quick, asked.repeats) == (Path("out"), ["gemm", "copies"], True, 10)
    with pytest.raises(SystemExit):
        measure.parse(["out", "--repeats", "0"])
    assert "--repeats must be at least 1" in capsys.readouterr().err


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "out")],
        capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and "pip install torch" in done.stderr
    assert not (tmp_path / "out").exists()


def test_shapes_fit_the_memory_and_are_many_enough(measure: ModuleType) -> None:
    shapes = list(measure.gemm_shapes(False))
    assert len(shapes) == len(set(shapes)) > 1000
    assert all(2 * (m * n + m * k + n * k) <= measure.MOST_BYTES for m, n, k in shapes)
    for prefill in (True, False):
        batches = list(measure.attention_shapes(prefill, False))
        assert len(batches) > 400 and len(list(measure.attention_shapes(prefill, True))) > 20


def test_a_new_gpu_is_calibrated_from_the_tables_it_writes_and_marked_so(measure: ModuleType, tmp_path: Path) -> None:
    common = {"framework": "PyTorch", "version": "2.8", "device": "Some GPU"}
    rows = (
        measure.gemm_row(m, n, k, 1e3 * (max(2e-14 * m * n * k, 2e-12 * n * k) + 4e-6))
        for m, n, k in measure.gemm_shapes(True)
    )
    decode = (
        measure.attention_row(False, shape, 1e3 * (5e-10 * shape[0] * shape[1] * shape[3] + 9e-6))
        for shape in measure.attention_shapes(False, True)
    )
    prefill = (
        measure.attention_row(True, shape, 1e3 * (1e-12 * shape[0] * shape[1] ** 2 * shape[2] + 9e-6))
        for shape in measure.attention_shapes(True, True)
    )
    assert measure.write_table(tmp_path / "gemm_perf.csv", rows, common) > 50
    measure.write_table(tmp_path / "generation_attention_perf.csv", decode, common)
    measure.write_table(tmp_path / "context_attention_perf.csv", prefill, common)

    path = ROOT / "hardware" / "l4.yaml"
    device = load_device(path)
    fits = [fitted(work) for work in works(read_tables([tmp_path]), device)]
    assert {fit.work.operator for fit in fits} == {"gemm", "attention_decode", "attention_prefill"}
    assert {fit.work.measured_with for fit in fits} == {"PyTorch 2.8 on Some GPU"}
    text = device_text(path.read_text(encoding="utf-8"), load_document(path), fits, "own measurements")
    out = tmp_path / "l4.yaml"
    out.write_text(text, encoding="utf-8")
    found = load_device(out)
    assert found.calibrated and not device.calibrated
    assert "PyTorch 2.8 on Some GPU" in found.efficiency("gemm").source
    assert found.sources == device.sources and found.interconnect == device.interconnect
    # Written twice it is the same file.
    assert device_text(text, load_document(out), fits, "own measurements") == text
