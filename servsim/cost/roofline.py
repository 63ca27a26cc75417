"""Step times from operators, a placement and each device's measured roofline."""

from __future__ import annotations

from collections.abc import Sequence as Many

from servsim.cost.cost_model import Chunk
from servsim.cost.law import Line, OperatorLaw
from servsim.cost.stride import Stride
from servsim.errors import ScenarioError
from servsim.hardware import Device
from servsim.model.operators import RowOperator, StepOperators

__all__ = ["HostWork", "RooflineCost"]

_NO_LIMIT = float("inf")
_MANY_STEPS = 1 << 60


class HostWork:
    """Scheduling, sampling and launches on the CPU: ``step_s + sequence_s`` for each sequence in the step.

    With asynchronous scheduling it runs beside the device and a step takes the longer of the two; without,
    one follows the other.
    """

    def __init__(self, step_s: float = 0.0, sequence_s: float = 0.0, *, asynchronous: bool = True) -> None:
        self.step_s = step_s
        self.sequence_s = sequence_s
        self.asynchronous = asynchronous

    def time_s(self, sequences: int) -> float:
        """Seconds on the CPU."""
        return self.step_s + self.sequence_s * sequences

    def beside(self, device_s: float, sequences: int) -> float:
        """Seconds of a step whose device work takes ``device_s``."""
        host_s = self.time_s(sequences)
        return max(device_s, host_s) if self.asynchronous else device_s + host_s


class RooflineCost:
    """All operators on one kind of device, one after the other.

    Everything but decode attention depends on how many tokens (or emitting sequences) a step has, and is
    computed once for each such number. Decode attention grows with the summed context, so a decode
    step's time is a maximum of straight lines in it, kept for each number of decoders. A mixed
    step makes one prefill and one decode attention call a layer.

    Not modelled here: KV that stays in the L2 between steps (weights flush it), tile and wave quantisation, the
    penalty of mixed attention calls, pipeline parallelism.
    """

    def __init__(self, operators: StepOperators, device: Device, host: HostWork | None = None) -> None:
        self.calibration = "calibrated" if device.calibrated else "uncalibrated"
        self._host = host or HostWork()
        self._per_token = _with_laws(operators.per_token, device)
        self._per_emitted = _with_laws(operators.per_emitted, device)
        self._attention = operators.attention
        self._prefill = OperatorLaw.of(device, "attention_prefill", operators.attention.dtype)
        self._decode = OperatorLaw.of(device, "attention_decode", operators.attention.dtype)
        if not self._decode.straight:
            raise ScenarioError(
                f"{device.name}: decode attention follows a p-norm, which has no closed form over a stride",
                remedy="use the law maximum or sum for attention_decode",
            )
        self._all_reduce = operators.all_reduce
        self._device = device
        if self._all_reduce is not None:
            device.check_tensor_parallel(self._all_reduce.group)
        self._token_s: dict[int, float] = {}
        self._emitted_s: dict[int, float] = {}
        self._decode_attention: dict[int, list[Line]] = {}
        self._decode_laws: dict[int, list[tuple[float, float, float]]] = {}

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps in which ``decoders`` sequences, reading ``context_tokens`` together, each take one more token."""
        pieces = None if shared_tokens else self._decode_laws.get(decoders)
        if pieces is None:
            pieces = self._decode_pieces(decoders, shared_tokens)
            if not shared_tokens:
                self._decode_laws[decoders] = pieces
        attended = context_tokens + decoders  # the new token attends to itself as well
        for limit, constant, slope in pieces:
            if attended <= limit:
                rate = decoders if growing is None else growing
                steps = _MANY_STEPS if limit == _NO_LIMIT or not rate else int((limit - attended) // rate) + 1
                return Stride(start_s, constant + slope * attended, slope * rate, steps)
        raise AssertionError("the last piece has no limit")

    def step_s(
        self, chunks: Many[Chunk], emitting: int, decoders: int, context_tokens: float, shared_tokens: int = 0
    ) -> float:
        """Seconds of one step with prefill ``chunks``, of which ``emitting`` end, beside such decoders."""
        attention = self._attention
        tokens = decoders
        pairs = 0.0
        kv_tokens = 0
        for chunk, stored in chunks:
            tokens += chunk
            # Each token attends to what is stored, to the chunk's tokens before it and to itself; kernels
            # for causal attention count half of the square for the chunk itself.
            pairs += chunk * stored + 0.5 * chunk * chunk
            kv_tokens += chunk + stored
        device_s = self._rows_s(tokens, emitting + decoders)
        if chunks:
            new = tokens - decoders
            size_bytes = attention.kv_bytes_per_token * kv_tokens + attention.io_bytes_per_token * new
            device_s += attention.calls * self._prefill.time_s(attention.prefill_flops_per_pair * pairs, size_bytes)
        if decoders:
            lines = None if shared_tokens else self._decode_attention.get(decoders)
            if lines is None:
                lines = self._decode_lines(decoders, shared_tokens)
                if not shared_tokens:
                    self._decode_attention[decoders] = lines
            attended = context_tokens + decoders
            device_s += max([constant + slope * attended for constant, slope in lines])
        return self._host.beside(device_s, len(chunks) + decoders)

    def _decode_lines(self, decoders: int, shared_tokens: int) -> list[Line]:
        """Decode attention of all layers as the maximum of lines in the attended tokens."""
        attention = self._attention
        lines = self._decode.lines(
            (0.0, attention.decode_flops_per_pair),
            (
                attention.io_bytes_per_token * decoders - attention.kv_bytes_per_token * shared_tokens,
                attention.kv_bytes_per_token,
            ),
        )
        return [(attention.calls * constant, attention.calls * slope) for constant, slope in lines]

    def _decode_pieces(self, decoders: int, shared_tokens: int) -> list[tuple[float, float, float]]:
        """A decode step's time as pieces ``(up to so many attended tokens, constant, slope)``."""
        rows_s = self._rows_s(decoders, decoders)
        lines = [(rows_s + constant, slope) for constant, slope in self._decode_lines(decoders, shared_tokens)]
        host_s = self._host.time_s(decoders)
        if self._host.asynchronous:
            lines.append((host_s, 0.0))
        else:
            lines = [(constant + host_s, slope) for constant, slope in lines]
        return _upper_envelope(lines)

    def _rows_s(self, tokens: int, emitted: int) -> float:
        """Everything but attention: a sum for the tokens and one for the sequences that emit."""
        token_s = self._token_s.get(tokens)
        if token_s is None:
            token_s = sum(law.rows_s(operator, tokens) for operator, law in self._per_token)
            token_s += self._all_reduce_s(tokens)
            self._token_s[tokens] = token_s
        emitted_s = self._emitted_s.get(emitted)
        if emitted_s is None:
            emitted_s = sum(law.rows_s(operator, emitted) for operator, law in self._per_emitted) if emitted else 0.0
            self._emitted_s[emitted] = emitted_s
        return token_s + emitted_s

    def _all_reduce_s(self, tokens: int) -> float:
        exchange, interconnect = self._all_reduce, self._device.interconnect
        if exchange is None or interconnect is None:
            return 0.0
        return exchange.calls * interconnect.all_reduce_s(exchange.bytes_per_token * tokens, exchange.group)


def _with_laws(operators: Many[RowOperator], device: Device) -> list[tuple[RowOperator, OperatorLaw]]:
    return [(operator, OperatorLaw.of(device, operator.kind, operator.dtype)) for operator in operators]


def _upper_envelope(lines: list[Line]) -> list[tuple[float, float, float]]:
    """The maximum of lines over x >= 0, as pieces ``(up to x, constant, slope)`` of rising slope."""
    constant, slope = max(lines)
    pieces: list[tuple[float, float, float]] = []
    while True:
        # Where a steeper line meets this one; of several at one point the steepest goes on.
        meets = [
            ((constant - other) / (steeper - slope), -steeper, other) for other, steeper in lines if steeper > slope
        ]
        if not meets:
            return [*pieces, (_NO_LIMIT, constant, slope)]
        limit, negative_slope, other = min(meets)
        if limit > 0:
            pieces.append((limit, constant, slope))
        constant, slope = other, -negative_slope
