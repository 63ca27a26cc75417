"""A predictor that is trained on a trace, with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from servsim.documents import validate
from servsim.errors import ScenarioError
from servsim.request import Request
from servsim.scenario.workload_spec import TraceWorkload
from servsim.scheduler.predictors.predictor import Predictor, Timed
from servsim.streams import Streams
from servsim.workload.replay import open_trace

if TYPE_CHECKING:
    from servsim.workload.blocks import RequestStream

__all__ = ["Trained"]


class Trained(Predictor):
    """A regression tree of the output's length over prompt length, tenant and hour, fitted to a trace (scikit-learn).

    Fitted once, before anything runs; the prediction is the mean output of the training requests in the leaf. The hour
    is that of the day where a trace's first request arrives at 0, as in every run. A tenant counts as the mean output
    of its training requests, found by its name; one that the trace does not know counts as the mean of all.
    Training on the very trace that is replayed flatters it: give another one, or another part.
    Needs the extra ``servsim[predictors]``.
    """

    class Parameters(Timed):
        """What a scenario may say under ``predictor`` besides its name."""

        trace: Annotated[Path, Field(strict=False)] = Field(
            description="The trace file to learn from; a path relative to the scenario's file."
        )
        format: str = Field(description="What reads it: azure, mooncake, burstgpt, table, ...")
        reader: dict[str, Any] = Field(
            default_factory=dict, description="The reader's own parameters, say columns, as under workload."
        )
        num_requests: int | None = Field(None, ge=1, description="Learn from so many of its first requests; or all.")
        min_samples_leaf: int = Field(50, ge=1, description="A leaf holds at least so many training requests.")
        max_depth: int = Field(8, ge=1, le=40, description="At most so many questions are asked of a request.")

    def __init__(self, parameters: Parameters, stream: np.random.Generator) -> None:
        self.latency_s = parameters.latency_s
        data = _read(parameters)
        self._mean = float(data.output_tokens.mean())
        codes = range(len(data.tenant_names))
        means = [float(data.output_tokens[data.tenant == code].mean()) for code in codes]
        self._mean_of = dict(zip(data.tenant_names, means, strict=True))
        features = np.column_stack([data.prompt_tokens, np.array(means)[data.tenant], data.hour])
        self._tree = _fitted(features, data.output_tokens, parameters)
        self._mean_by_index: dict[int, float] = {}

    def prepare(self, requests: RequestStream) -> None:
        """Learn which tenants of the run the training trace knows."""
        known = {index: self._mean_of.get(name, self._mean) for index, name in enumerate(requests.tenants)}
        self._mean_by_index = known

    def predict(self, request: Request) -> float:
        """The mean of the leaf that the request falls into."""
        tenant_mean = self._mean_by_index.get(request.tenant, self._mean)
        return self._tree.value(request.prompt_tokens, tenant_mean, request.arrival_s / 3600 % 24)


class _Data(NamedTuple):
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    tenant: NDArray[Any]
    tenant_names: tuple[str, ...]
    hour: NDArray[np.float64]


def _read(parameters: Trained.Parameters) -> _Data:
    """The training requests; raises TraceError where the file is not what it should be."""
    named = {"trace": str(parameters.trace), "format": parameters.format, "num_requests": parameters.num_requests}
    given = {**parameters.reader, **named}
    requests = open_trace(validate(TraceWorkload, given, document=None), Streams(0))
    blocks = list(requests.blocks())
    present, tenant = np.unique(np.concatenate([block.tenant for block in blocks]), return_inverse=True)
    return _Data(
        np.concatenate([block.prompt_tokens for block in blocks]),
        np.concatenate([block.output_tokens for block in blocks]),
        tenant,
        tuple(requests.tenants[code] for code in present.tolist()),
        np.concatenate([block.arrival_s for block in blocks]) / 3600 % 24,
    )


def _fitted(features: NDArray[Any], output_tokens: NDArray[np.int64], parameters: Trained.Parameters) -> _Tree:
    try:
        from sklearn.tree import DecisionTreeRegressor  # optional, and slow to import
    except ImportError:
        raise ScenarioError(
            "the predictor 'trained' needs scikit-learn, which is not installed",
            remedy="pip install 'servsim[predictors]'",
        ) from None
    model = DecisionTreeRegressor(
        min_samples_leaf=parameters.min_samples_leaf, max_depth=parameters.max_depth, random_state=0
    )
    return _Tree(model.fit(features, output_tokens).tree_)


class _Tree:
    """A fitted tree as plain lists: 2 us a prediction, where scikit-learn's own takes 100 us for one request."""

    def __init__(self, tree: Any) -> None:
        self._left = tree.children_left.tolist()
        self._right = tree.children_right.tolist()
        self._feature = tree.feature.tolist()
        self._threshold = tree.threshold.tolist()
        self._value = tree.value[:, 0, 0].tolist()

    def value(self, *features: float) -> float:
        """The mean of the leaf that these features lead to."""
        node = 0
        while self._left[node] >= 0:
            goes_left = features[self._feature[node]] <= self._threshold[node]
            node = self._left[node] if goes_left else self._right[node]
        return float(self._value[node])
