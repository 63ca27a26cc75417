"""Published claims, tried in simulation: what a paper says, what we get, and what was assumed."""

from servsim.validation.claim import Claim, Finding, Verdict
from servsim.validation.claims import CLAIMS, find_claims
from servsim.validation.reproducing import Reproduction, plan_trials, reproduce
from servsim.validation.table import claims_markdown, claims_report, write_claims

__all__ = [
    "CLAIMS",
    "Claim",
    "Finding",
    "Reproduction",
    "Verdict",
    "claims_markdown",
    "claims_report",
    "find_claims",
    "plan_trials",
    "reproduce",
    "write_claims",
]
