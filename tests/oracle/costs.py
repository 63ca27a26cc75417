"""Cost models for the tests: straight lines with breakpoints, and the real roofline with small contexts."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cache
from typing import Any

from servsim.cost.cost_model import Chunk
from servsim.cost.host import HostWork
from servsim.cost.roofline import RooflineCost
from servsim.cost.stride import Stride
from servsim.hardware import load_device
from servsim.model import load_model
from servsim.model.operators import step_operators
from servsim.scenario import catalogue


@dataclass(frozen=True)
class LinesCost:
    """A decode step takes the maximum of lines in the summed context; prefill adds a term a token.

    With ``unit_s`` a power of two all times are exact in floating point, however they are added up.
    """

    unit_s: float
    lines: tuple[tuple[int, int], ...]  # constant and slope, in units
    longest: int = 1 << 60  # a stride's limit besides the breakpoints
    calibration = "synthetic"

    def decode_stride(
        self, start_s: float, decoders: int, context_tokens: int, growing: None = None, shared_tokens: int = 0
    ) -> Stride:
        attended = context_tokens + decoders
        constant, slope = max(self.lines, key=lambda line: (line[0] + line[1] * attended, line[1]))
        steps = self.longest
        for other, steeper in self.lines:
            if steeper > slope:  # the last step at which this line is still not below the other
                meet = (constant - other) // (steeper - slope)
                steps = min(steps, (meet - attended) // decoders + 1)
        first = constant + slope * attended + decoders
        return Stride(start_s, self.unit_s * first, self.unit_s * (slope * decoders), max(1, steps))

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: int, shared_tokens: int = 0
    ) -> float:
        units = sum(3 * tokens + stored for tokens, stored in chunks) + emitting + decoders
        attended = context_tokens + decoders if decoders else 0
        return self.unit_s * (units + max(constant + slope * attended for constant, slope in self.lines))


@cache
def roofline(decoders: int | None = None, context: int = 0, asynchronous: bool = True) -> Any:
    """Llama-3.1-8B on an H100; the host takes as long as ``decoders`` with that summed ``context`` on the device."""
    device = load_device(catalogue.locate("hardware", "h100-sxm"))
    operators = step_operators(load_model(catalogue.locate("models", "llama-3.1-8b")), 1, "bf16", "none", "bf16")
    if decoders is None:
        return RooflineCost(operators, device)
    host_s = RooflineCost(operators, device).decode_stride(0.0, decoders, context).first_s
    return RooflineCost(operators, device, HostWork(host_s, asynchronous=asynchronous))
