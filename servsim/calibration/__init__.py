"""Efficiencies of a device, fitted to the times that its kernels were measured to take."""

from servsim.calibration.blocks import device_text
from servsim.calibration.fit import Fit, fitted
from servsim.calibration.tables import Table, read_tables
from servsim.calibration.works import Work, works

__all__ = ["Fit", "Table", "Work", "device_text", "fitted", "read_tables", "works"]
