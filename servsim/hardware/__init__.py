"""What devices can do: peaks, memories, links, and how much of them kernels reach."""

from servsim.hardware.correction import Axis, Correction, Grid
from servsim.hardware.device import AllReduce, Device, Interconnect, Peaks
from servsim.hardware.drive import Drive
from servsim.hardware.efficiency import Efficiency, default_efficiency
from servsim.hardware.link_spec import LinkSpec
from servsim.hardware.loading import load_device, load_drive, load_hardware, load_link
from servsim.hardware.route import Direction, Route
from servsim.hardware.tier import Tier

__all__ = [
    "AllReduce",
    "Axis",
    "Correction",
    "Device",
    "Direction",
    "Drive",
    "Efficiency",
    "Grid",
    "Interconnect",
    "LinkSpec",
    "Peaks",
    "Route",
    "Tier",
    "default_efficiency",
    "load_device",
    "load_drive",
    "load_hardware",
    "load_link",
]
