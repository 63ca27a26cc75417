"""Step times from operators, a placement and each device's measured roofline."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Many

from servsim.cost.attention import DecodeAttention, PrefillAttention
from servsim.cost.cost_model import Chunk
from servsim.cost.host import HostWork
from servsim.cost.law import OperatorLaw, RowLaw
from servsim.cost.pieces import NO_LIMIT, Piece, at_least, raised
from servsim.cost.stride import Stride
from servsim.hardware import Device
from servsim.model.operators import RowOperator, StepOperators

__all__ = ["RooflineCost"]

_MANY_STEPS = 1 << 60
_Pieces = tuple[list[float], list[Piece]]


class RooflineCost:
    """All operators of a network, or of a pipeline's stage, on one kind of device, one after the other.

    Everything but decode attention depends on how many tokens (or emitting sequences) a step has, and is
    computed once for each such number. Decode attention grows with the summed context, so a decode
    step's time is made of straight pieces in it, kept for each number of decoders. A mixed
    step makes one prefill and one decode attention call a layer, together ``mixed_attention`` times as long as
    apart; decode attention over contexts of unequal length takes ``ragged_attention`` times as long as over equal
    ones, which is what kernel tables measure.

    Not modelled here: KV that stays in the L2 between steps (weights flush it).
    """

    def __init__(
        self,
        operators: StepOperators,
        device: Device,
        host: HostWork | None = None,
        *,
        ragged_attention: float = 1.0,
        mixed_attention: float = 1.0,
    ) -> None:
        self.calibration = "calibrated" if device.calibrated else "uncalibrated"
        self._host = host or HostWork()
        self._ragged = ragged_attention
        self._mixed = mixed_attention
        self._per_token = _with_laws(operators.per_token, device)
        self._per_emitted = _with_laws(operators.per_emitted, device)
        self._attention = operators.attention
        self._prefill = PrefillAttention(operators.attention, device)
        self._decode = DecodeAttention(operators.attention, device)
        self._outside: dict[str, int] = {}
        self._all_reduce = operators.all_reduce
        self._device = device
        if self._all_reduce is not None:
            device.check_tensor_parallel(self._all_reduce.group)
        self._pads = self._host.padded if self._host.pads else None
        self._launch_s = self._host.launch_s(operators.attention.calls)
        self._around: dict[int, tuple[float, float]] = {}  # by sequences: what the device waits for, and the floor
        self._token_s: dict[int, float] = {}
        self._emitted_s: dict[int, float] = {}
        # By decoders: the limits of the pieces, to search in, and the pieces.
        self._decode_attention: dict[int, _Pieces] = {}
        self._decode_laws: dict[int, _Pieces] = {}
        self._reach = self._decode.reach

    def outside_range(self) -> dict[str, int]:
        """How often each kind of operator was asked for beyond what was measured on the device.

        Counted once for each number of tokens or decoders, for decode attention over longer contexts once a
        stride, for prefill attention once a step.
        """
        return dict(sorted(self._outside.items()))

    def decode_stride(
        self,
        start_s: float,
        decoders: int,
        context_tokens: float,
        growing: float | None = None,
        shared_tokens: int = 0,
    ) -> Stride:
        """Steps in which ``decoders`` sequences, reading ``context_tokens`` together, each take one more token."""
        found = None if shared_tokens else self._decode_laws.get(decoders)
        if found is None:
            found = _searchable(self._decode_pieces(decoders, shared_tokens))
            if not shared_tokens:
                self._decode_laws[decoders] = found
        attended = context_tokens + decoders  # the new token attends to itself as well
        limits, pieces = found
        limit, constant, slope = pieces[bisect_left(limits, attended)]
        if attended > self._reach * decoders:
            self._count("attention_decode")
        rate = decoders if growing is None else growing
        steps = _MANY_STEPS if limit == NO_LIMIT or not rate else int((limit - attended) // rate) + 1
        return Stride(start_s, constant + slope * attended, slope * rate, steps)

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
        rows = tokens if self._pads is None else self._pads(tokens)
        device_s = self._rows_s(rows, emitting + decoders)
        attention_s = 0.0
        if chunks:
            new, prefill = tokens - decoders, self._prefill
            attention_s = attention.calls * prefill.time_s(new, kv_tokens, pairs)
            if pairs > prefill.most_pairs_per_token * new:
                self._count("attention_prefill")
        if decoders:
            found = None if shared_tokens else self._decode_attention.get(decoders)
            if found is None:
                found = _searchable(self._attention_pieces(decoders, shared_tokens))
                if not shared_tokens:
                    self._decode_attention[decoders] = found
            attended = context_tokens + decoders
            limits, pieces = found
            _, constant, slope = pieces[bisect_left(limits, attended)]
            attention_s += constant + slope * attended
        device_s += attention_s * self._mixed if chunks and decoders else attention_s
        if chunks and device_s < self._launch_s:
            device_s = self._launch_s
        sequences = len(chunks) + decoders
        around = self._around.get(sequences)
        if around is None:
            around = self._around[sequences] = (self._host.waited_s(sequences), self._host.floor_s(sequences))
        waited_s, floor_s = around
        return max(device_s + waited_s, floor_s)

    def _attention_pieces(self, decoders: int, shared_tokens: int) -> list[Piece]:
        """Decode attention of all layers as pieces in the attended tokens."""
        if self._decode.outside(decoders):
            self._count("attention_decode")
        return raised(self._decode.pieces(decoders, shared_tokens), 0.0, self._attention.calls * self._ragged)

    def _decode_pieces(self, decoders: int, shared_tokens: int) -> list[Piece]:
        """A decode step's time as pieces in the attended tokens."""
        fixed_s = self._rows_s(self._host.padded(decoders), decoders) + self._host.waited_s(decoders)
        pieces = raised(self._attention_pieces(decoders, shared_tokens), fixed_s)
        return at_least(pieces, self._host.floor_s(decoders))

    def _count(self, kind: str) -> None:
        self._outside[kind] = self._outside.get(kind, 0) + 1

    def _rows_s(self, tokens: int, emitted: int) -> float:
        """Everything but attention: a sum for the tokens and one for the sequences that emit."""
        token_s = self._token_s.get(tokens)
        if token_s is None:
            token_s = sum(self._operator_s(law, tokens) for law in self._per_token)
            token_s += self._all_reduce_s(tokens)
            self._token_s[tokens] = token_s
        emitted_s = self._emitted_s.get(emitted)
        if emitted_s is None:
            emitted_s = sum(self._operator_s(law, emitted) for law in self._per_emitted) if emitted else 0.0
            self._emitted_s[emitted] = emitted_s
        return token_s + emitted_s

    def _operator_s(self, law: RowLaw, rows: int) -> float:
        if law.outside(rows):
            # Apart from other products: a vocabulary is wider than any that was measured, whatever the batch.
            self._count("lm_head" if law.operator.name == "lm_head" else law.operator.kind)
        return law.time_s(rows)

    def _all_reduce_s(self, tokens: int) -> float:
        exchange, interconnect = self._all_reduce, self._device.interconnect
        if exchange is None or interconnect is None:
            return 0.0
        message_bytes = exchange.bytes_per_token * tokens
        low, high = interconnect.all_reduce_for(exchange.group).covers.get("bytes", (0.0, float("inf")))
        if not low <= message_bytes <= high:
            self._count("all_reduce")
        return exchange.calls * interconnect.all_reduce_s(message_bytes, exchange.group)


def _searchable(pieces: list[Piece]) -> _Pieces:
    return [limit for limit, _, _ in pieces], pieces


def _with_laws(operators: Many[RowOperator], device: Device) -> list[RowLaw]:
    return [RowLaw(operator, OperatorLaw.of(device, operator.kind, operator.dtype)) for operator in operators]
