"""All claims by name."""

from __future__ import annotations

from collections.abc import Sequence

from servsim.errors import ScenarioError, suggestion
from servsim.validation.block_sharing import BLOCK_SHARING
from servsim.validation.chunk_attention import CHUNK_ATTENTION
from servsim.validation.claim import Claim
from servsim.validation.clairvoyant import CLAIRVOYANT_BURST, CLAIRVOYANT_POISSON
from servsim.validation.fastserve import FASTSERVE
from servsim.validation.fastswitch import FASTSWITCH
from servsim.validation.headinfer import HEADINFER
from servsim.validation.long_context import LONG_CONTEXT
from servsim.validation.paged_attention import PAGED_ATTENTION
from servsim.validation.past_future import PAST_FUTURE
from servsim.validation.pensieve import PENSIEVE
from servsim.validation.relay_attention import RELAY_ATTENTION
from servsim.validation.s3 import S3_THROUGHPUT
from servsim.validation.sarathi import SARATHI
from servsim.validation.shadowkv import SHADOWKV
from servsim.validation.vattention import VATTENTION
from servsim.validation.vtc import VTC

__all__ = ["CLAIMS", "find_claims"]

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        PAST_FUTURE,
        CLAIRVOYANT_BURST,
        CLAIRVOYANT_POISSON,
        FASTSERVE,
        S3_THROUGHPUT,
        VTC,
        SARATHI,
        FASTSWITCH,
        HEADINFER,
        LONG_CONTEXT,
        PENSIEVE,
        PAGED_ATTENTION,
        BLOCK_SHARING,
        VATTENTION,
        CHUNK_ATTENTION,
        RELAY_ATTENTION,
        SHADOWKV,
    )
}
"""Every claim by its name, which is that of its scenario in ``scenarios/papers/``."""


def find_claims(names: Sequence[str]) -> list[Claim]:
    """The claims of these names, each once; all for no name. Raises ScenarioError for an unknown one.

    A claim may be called as its scenario is: ``papers/vtc`` is ``vtc``.
    """
    plain = [name.removeprefix(_FOLDER) for name in names]
    for name in plain:
        if name not in CLAIMS:
            raise ScenarioError(f"unknown claim '{name}'", remedy=suggestion(name, CLAIMS))
    return [CLAIMS[name] for name in dict.fromkeys(plain or CLAIMS)]


_FOLDER = "papers/"
