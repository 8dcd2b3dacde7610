"""Fitting a trained router's probabilities to labelled queries, without touching its scores."""

from dataclasses import replace

import numpy as np

from experts.errors import CannotTrain
from experts.routing.base import OUTSIDE, Examples
from experts.routing.calibration import conformal
from experts.routing.judging import Logistic
from experts.routing.logistic import fit_logistic
from experts.routing.router import RouterModel
from experts.routing.training import held_out_features

_LEAST = 20


def recalibrated(model: RouterModel, examples: Examples) -> RouterModel:
    """The same router with confidence, risk and coverage fitted to ``examples``. Raises CannotTrain on too few.

    Coverage keeps its weights and is shifted and stretched (Platt 1999), which needs queries inside and outside.
    """
    inside = examples.take(np.flatnonzero(examples.owner != OUTSIDE))
    if len(inside) < _LEAST:
        raise CannotTrain(
            f"{len(inside)} labelled queries that an expert covers; {_LEAST} are the least to calibrate on"
        )
    features, share, owner = held_out_features(model, inside)
    right = share.argmax(axis=1) == owner
    calibration = replace(
        model.calibration, confidence=fit_logistic(features, right), conformal=conformal(share, owner)
    )
    if len(inside) < len(examples):
        probability = np.clip(model.score(examples.texts, examples.embedded).coverage, 1e-6, 1 - 1e-6)
        logit = np.log(probability / (1 - probability))[:, None].astype(np.float32)
        fitted = fit_logistic(logit, examples.owner != OUTSIDE)
        calibration = replace(calibration, coverage=_after(model.calibration.coverage, fitted))
    return replace(model, calibration=calibration)


def _after(first: Logistic, second: Logistic) -> Logistic:
    """One judge that gives what ``second`` makes of the log-odds of ``first``; surer never means less likely."""
    slope = max(float(second.weights[0] / second.scale[0]), 1e-3)
    offset = second.bias - slope * float(second.mean[0])
    return Logistic(first.mean, first.scale, first.weights * np.float32(slope), slope * first.bias + offset)
