"""How long a step takes: placement x roofline x calibration."""

from servsim.cost.cost_model import CostModel
from servsim.cost.fixed import FixedCost
from servsim.cost.stride import Stride

__all__ = ["CostModel", "FixedCost", "Stride"]
