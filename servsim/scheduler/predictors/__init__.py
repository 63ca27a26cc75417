"""What a policy believes about output lengths."""

from servsim.scheduler.predictors.classes import Bucket, ClairvoyantClasses
from servsim.scheduler.predictors.history import History
from servsim.scheduler.predictors.noise import LognormalNoise, MaeNoise
from servsim.scheduler.predictors.predictor import Constant, Oracle, Predictor, Timed
from servsim.scheduler.predictors.ranking import RankAccuracy, sigma_for_accuracy
from servsim.scheduler.predictors.trained import Trained

__all__ = [
    "Bucket",
    "ClairvoyantClasses",
    "Constant",
    "History",
    "LognormalNoise",
    "MaeNoise",
    "Oracle",
    "Predictor",
    "RankAccuracy",
    "Timed",
    "Trained",
    "sigma_for_accuracy",
]
