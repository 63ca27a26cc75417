"""What a network looks like, and what a step has to do."""

from servsim.model.loading import load_model
from servsim.model.shape import MlaShape, ModelShape, MoeShape
from servsim.model.weights import DTYPE_BYTES, WeightGroup, weight_groups

__all__ = [
    "DTYPE_BYTES",
    "MlaShape",
    "ModelShape",
    "MoeShape",
    "WeightGroup",
    "load_model",
    "weight_groups",
]
