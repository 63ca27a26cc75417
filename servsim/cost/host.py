"""What an engine adds to its kernels: host work, gaps between steps, launches, padded batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Many

__all__ = ["HostWork"]


class HostWork:
    """Scheduling, sampling and launches on the CPU, and the shape in which they hand a batch to the device.

    ``step_s + sequence_s`` for each sequence in the step runs beside the device with asynchronous scheduling, where a
    step takes the longer of the two; without, one follows the other. In ``gap_s + sequence_gap_s`` for each sequence
    the device waits either way: inputs are copied, the graph is launched, sampled tokens come back.

    A step with prefill is launched kernel by kernel, or graph by graph between attention calls: its device work
    takes at least ``eager_layer_s`` a layer. ``capture_sizes`` are the batches that graphs were captured for, in
    rising order: a batch (of decoders; in a mixed step, of tokens) is padded to the next one and left as it is
    beyond the last.
    """

    def __init__(
        self,
        step_s: float = 0.0,
        sequence_s: float = 0.0,
        *,
        asynchronous: bool = True,
        gap_s: float = 0.0,
        sequence_gap_s: float = 0.0,
        eager_layer_s: float = 0.0,
        capture_sizes: Many[int] = (),
    ) -> None:
        self.step_s = step_s
        self.sequence_s = sequence_s
        self.asynchronous = asynchronous
        self.gap_s = gap_s
        self.sequence_gap_s = sequence_gap_s
        self.eager_layer_s = eager_layer_s
        self._capture_sizes = tuple(capture_sizes)

    def time_s(self, sequences: int) -> float:
        """Seconds on the CPU that asynchronous scheduling hides."""
        return self.step_s + self.sequence_s * sequences

    def waited_s(self, sequences: int) -> float:
        """Seconds in which the device waits for the host, whatever is hidden."""
        waited_s = self.gap_s + self.sequence_gap_s * sequences
        return waited_s if self.asynchronous else waited_s + self.time_s(sequences)

    def floor_s(self, sequences: int) -> float:
        """No step is shorter: what the CPU needs where it runs beside the device, else 0."""
        return self.time_s(sequences) if self.asynchronous else 0.0

    @property
    def pads(self) -> bool:
        """Whether :meth:`padded` ever changes anything."""
        return bool(self._capture_sizes)

    def padded(self, rows: int) -> int:
        """The rows that a captured graph computes for so many."""
        place = bisect_left(self._capture_sizes, rows)
        return self._capture_sizes[place] if place < len(self._capture_sizes) else rows

    def launch_s(self, layers: int) -> float:
        """Launching the kernels of a step with prefill: its device work takes no less."""
        return self.eager_layer_s * layers
