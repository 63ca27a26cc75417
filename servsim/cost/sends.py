"""How long hidden states take from one stage of a pipeline to the next."""

from __future__ import annotations

from functools import lru_cache

from servsim.errors import ScenarioError
from servsim.hardware import Device, LinkSpec

__all__ = ["StageSends"]

_TENSORS = 2  # hidden states and residual, which fused norms keep apart until the next layer


class StageSends:
    """Each of ``group`` devices sends its share of every token's hidden states, and the receivers gather the shares.

    Over the devices' own interconnect a send costs as much as an all-reduce of two, which puts as many bytes on the
    wire and is what was measured. Over a link it is its latency, its launch and its bandwidth. A gather is the second
    half of a ring's all-reduce, and costs half of one; where small messages are summed in one stage this is a guess.
    Sends of different steps over one link do not slow each other down.

    Source: ``send_tensor_dict`` in vllm/distributed/parallel_state.py (0.6). Raises ScenarioError where neither is
    known.
    """

    def __init__(self, device: Device, link: LinkSpec | None, *, hidden_bytes: float, group: int) -> None:
        self._interconnect = device.interconnect
        self._link = link
        self._token_bytes = _TENSORS * hidden_bytes
        self._group = group
        if link is None and device.interconnect is None:
            raise ScenarioError(
                f"{device.name} has no interconnect to send over", remedy="name a pipeline_link, for example rdma-400g"
            )

        self.time_s = lru_cache(maxsize=1 << 14)(self._time_s)  # asked in every step, for few numbers of tokens

    def _time_s(self, tokens: int) -> float:
        """Seconds from the end of a step of so many tokens on one stage until the next can begin it."""
        message_bytes = tokens * self._token_bytes
        share_bytes = message_bytes / self._group
        link, interconnect = self._link, self._interconnect
        gather_s = 0.0
        if self._group > 1 and interconnect is not None:
            gather_s = 0.5 * interconnect.all_reduce_s(message_bytes, self._group)
        if link is not None:
            return link.latency_s + link.launch_s + share_bytes / link.write_bandwidth_bytes_per_s + gather_s
        assert interconnect is not None
        return interconnect.all_reduce_s(share_bytes, 2) + gather_s
