"""The base of every schema that a user's file is checked against."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = ["Spec", "WholeNumber", "refusal"]

_LARGEST_EXACT = 1 << 53  # beyond it a float no longer counts one by one


class Spec(BaseModel):
    """What a user writes: frozen, no unknown keys, no silent conversions, no NaN, no infinity.

    A number is never read from text nor from true or false. In Python a sequence may be a list or a
    tuple where the field says so with ``Field(strict=False)``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def refusal(message: str, *, remedy: str | None = None, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """What a validator raises to refuse a value, worded for the user.

    ``at`` is the key path of the culprit, counted from the value that is being validated.
    """
    return PydanticCustomError("refusal", "{message}", {"message": message, "remedy": remedy, "at": at})


def _whole(value: Any) -> Any:
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT
    return int(value) if exact else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
"""An integer that may be written ``1e6``; 1.5 and true are refused."""
