"""The shipped efficiencies reach, on the measurements that their fits did not see, the errors that they state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servsim.calibration import Work, read_tables, works
from servsim.calibration.fit import predicted_s
from servsim.hardware import AllReduce, Device, Efficiency, load_device

FOLDER = Path(__file__).parents[2] / "hardware"
TABLES = {
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "b200": "b200_sxm",
    "a100-80gb-sxm": "a100_sxm",
    "l40s": "l40s",
    "rtx-pro-6000": "rtx_pro_6000_server",
}


def entry_for(device: Device, work: Work) -> Efficiency | AllReduce:
    if work.group:
        assert device.interconnect is not None
        return device.interconnect.all_reduce_for(work.group)
    return device.efficiency(work.operator, work.dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLES)
def test_shipped_fits_state_their_errors_on_held_back_rows(servsim_data: Path, name: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    judged = 0
    for work in works(read_tables([servsim_data / "kernels" / TABLES[name]]), device):
        entry, held = entry_for(device, work), work.held_back
        relative = np.abs(predicted_s(work, entry, held) / work.seconds[held] - 1)
        assert (entry.rows, entry.held_back) == (int((~held).sum()), int(held.sum()))
        assert entry.median_error == pytest.approx(float(np.median(relative)), abs=1e-3), work.operator
        assert entry.p90_error == pytest.approx(float(np.percentile(relative, 90)), abs=3e-3), work.operator
        for axis, (low, high) in entry.covers.items():
            assert low <= work.covers[axis].min() and work.covers[axis].max() <= high
        judged += 1
    assert judged >= 4
