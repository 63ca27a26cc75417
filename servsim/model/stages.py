"""A network cut into the stages of a pipeline: which layers, and what else, each of them holds."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.errors import ScenarioError
from servsim.model.operators import StepOperators, step_operators
from servsim.model.shape import ModelShape, MoeShape
from servsim.model.weights import Quantization, rank_bytes, weight_groups

__all__ = ["Stage", "pipeline_stages"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive layers of a network on devices of their own."""

    shape: ModelShape  # the network, with the stage's layers alone
    first: bool = True  # embeds the tokens
    last: bool = True  # normalises, projects to the vocabulary and samples

    def weight_bytes(self, dtype: str, quantization: Quantization, tensor_parallel_size: int) -> int:
        """Bytes of weights on one of its devices; see :meth:`ModelShape.weight_bytes`."""
        groups = weight_groups(self.shape, tensor_parallel_size, first=self.first, last=self.last)
        return rank_bytes(groups, dtype, quantization)

    def operators(
        self, tensor_parallel_size: int, dtype: str, quantization: Quantization, kv_dtype: str
    ) -> StepOperators:
        """What one of its devices does in a step."""
        return step_operators(
            self.shape, tensor_parallel_size, dtype, quantization, kv_dtype, first=self.first, last=self.last
        )


def pipeline_stages(shape: ModelShape, pipeline_parallel_size: int) -> tuple[Stage, ...]:
    """The network in so many stages, as evenly as its layers divide.

    Of ``r`` layers left over, the ``r`` stages before the last get one each: the last has the LM head, and the first,
    as long as there are others, the embedding.

    Source: ``get_pp_indices`` in vllm/distributed/utils.py (0.19); that of 0.6, whose virtual engines these stages
    have, leaves all ``r`` to the last stage. Raises ScenarioError for more stages than layers.
    """
    layers = shape.num_hidden_layers
    if pipeline_parallel_size > layers:
        raise ScenarioError(
            f"{shape.name} has {layers} layers, not enough for {pipeline_parallel_size} stages",
            remedy=f"pipeline_parallel_size may be at most {layers}",
        )
    counts = [layers // pipeline_parallel_size] * pipeline_parallel_size
    for place in range(2, layers % pipeline_parallel_size + 2):
        counts[-place] += 1
    starts = [sum(counts[:number]) for number in range(pipeline_parallel_size)]
    return tuple(
        Stage(_layers_of(shape, start, count), start == 0, start + count == layers)
        for start, count in zip(starts, counts, strict=True)
    )


def _layers_of(shape: ModelShape, start: int, count: int) -> ModelShape:
    """The network with ``count`` of its layers, from number ``start``."""
    if count == shape.num_hidden_layers:
        return shape
    moe = None if shape.moe is None else _experts_of(shape.moe, start, count)
    return shape.model_copy(update={"num_hidden_layers": count, "moe": moe})


def _experts_of(moe: MoeShape, start: int, count: int) -> MoeShape | None:
    """Which of these layers route to experts, counted from the first of them; None if none does."""
    if not any(moe.is_moe_layer(layer) for layer in range(start, start + count)):
        return None
    return moe.model_copy(
        update={
            "first_k_dense_replace": max(0, moe.first_k_dense_replace - start),
            "dense_layers": tuple(layer - start for layer in moe.dense_layers if layer >= start),
            "layer_offset": (moe.layer_offset - start) % moe.layer_frequency,
        }
    )
