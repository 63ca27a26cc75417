"""What devices can do: peaks, memories, links, and how much of them kernels reach."""

from servsim.hardware.correction import Axis, Correction, Grid
from servsim.hardware.device import AllReduce, Device, Interconnect, Peaks
from servsim.hardware.drive import Drive
from servsim.hardware.efficiency import Efficiency, default_efficiency
from servsim.hardware.loading import load_device, load_drive, load_hardware

__all__ = [
    "AllReduce",
    "Axis",
    "Correction",
    "Device",
    "Drive",
    "Efficiency",
    "Grid",
    "Interconnect",
    "Peaks",
    "default_efficiency",
    "load_device",
    "load_drive",
    "load_hardware",
]
