"""What a scenario may say about LightLLM's router: its admission rule, its batches, and both."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from servsim.documents import refusal

__all__ = ["AdmissionParameters", "BatchingParameters", "LightLlmParameters"]


class _ChunkParameters(BaseModel):
    """What rule and batches must both know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enable_chunked_prefill: bool = Field(False, description="prefill in chunks beside the decoders")
    chunked_prefill_size: int | None = Field(
        None, ge=1, description="tokens of a chunk; by default what 2 chunks + 256 <= max_num_batched_tokens allows"
    )
    router_max_wait_tokens: int = Field(
        6, ge=1, description="decode steps between two prefill batches where they wait; in the chunk term always"
    )

    def chunk_tokens(self, max_num_batched_tokens: int) -> int | None:
        """The largest chunk; None without chunked prefill.

        LightLLM takes 4,096, with batches of ``2 x 4,096 + 256`` tokens; a smaller budget shrinks the chunk alike.
        """
        if not self.enable_chunked_prefill:
            return None
        budget = max_num_batched_tokens
        return self.chunked_prefill_size or max(1, min(4096, max(budget // 4, (budget - 256) // 2)))


class AdmissionParameters(_ChunkParameters):
    """Of the admission rule ``lightllm``."""

    mode: Literal["conservative", "aggressive"] = Field(
        "conservative", description="assumed output: the declared maximum, or about router_max_new_token_len"
    )
    router_token_ratio: float | None = Field(
        None, ge=0, le=1, description="share of the capacity in use from which the declared maximum is assumed; "
        "conservative: 0, aggressive: above 0, by default 1"
    )  # fmt: skip
    router_max_new_token_len: int = Field(
        1024, ge=1, le=1 << 30, description="aggressive: output assumed of a request, until 1.1 x its own is more"
    )

    @property
    def busy_share(self) -> float:
        """The share of the capacity from which the instance counts as busy."""
        if self.router_token_ratio is None:
            return 0.0 if self.mode == "conservative" else 1.0
        return self.router_token_ratio

    @model_validator(mode="after")
    def _check_ratio(self) -> Self:
        if (self.busy_share > 0) == (self.mode == "aggressive"):
            return self
        raise refusal(
            f"router_token_ratio {self.router_token_ratio:g} does not make the mode {self.mode}",
            remedy="conservative is ratio 0; aggressive is a ratio above 0, at most 1",
            at=("router_token_ratio",),
        )


class BatchingParameters(_ChunkParameters):
    """Of the batching ``lightllm``."""

    batch_max_tokens: int | None = Field(
        None, ge=1, description="tokens of a prefill batch; by default max_num_batched_tokens (LightLLM: all of memory)"
    )
    disable_aggressive_schedule: bool = Field(
        False, description="prefill only after router_max_wait_tokens decode steps, and not at once (LightLLM's flag)"
    )


class LightLlmParameters(AdmissionParameters, BatchingParameters):
    """Of the preset ``lightllm``."""
