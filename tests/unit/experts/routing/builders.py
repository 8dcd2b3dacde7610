"""A router made by hand, of which every number can be worked out."""

from dataclasses import replace
from typing import Any

import numpy as np

from experts.routing.base import Floats
from experts.routing.calibration import Calibration, Conformal
from experts.routing.familiarity import Familiarity
from experts.routing.judging import Logistic
from experts.routing.known import Known
from experts.routing.router import Distances, RouterModel


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def looking_at(feature: int, n: int) -> Logistic:
    """A judge of n features that looks at one of them: its sigmoid."""
    return Logistic(np.zeros(n, np.float32), np.ones(n, np.float32), np.eye(n, dtype=np.float32)[feature], 0.0)


def known(**changed: Any) -> Known:
    """Two experts on two axes; the second has adopted a query of the world on the third."""
    plain = Known(
        experts=("bank", "code"),
        keywords={"bank": ["loan"], "code": []},
        texts=["a loan", "a pointer"],
        owner=np.array([0, 1, 1]),
        vectors=np.eye(3, dtype=np.float32),
        traits=np.eye(3, dtype=np.float32),
        centre=np.zeros((1, 3), np.float32),
        outside_texts=["a cake"],
        outside=floats(0, 0.6, 0.8)[None],
        outside_traits=floats(0, 0.6, 0.8)[None],
        background=floats(0.6, 0, -0.8)[None],
        background_texts=["a hat"],
        background_traits=floats(0.6, 0, -0.8)[None],
        topic=np.zeros(1, np.int64),
        passages=floats(0.8, 0.6, 0)[None],
        library=np.zeros(1, np.int64),
    )
    return replace(plain, **changed)


def router(**changed: Any) -> RouterModel:
    """Scored by centroids at temperature 3, so by five times the cosine; every judge looks at its first feature."""
    plain = RouterModel(
        kind="centroid",
        encoder="by hand",
        known=known(),
        learned={},
        familiarity=Familiarity(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:2], floats(0, 0.5, 1)),
        distances=Distances(
            floats(1, 0, 0, 0, 0.5, 0.5).reshape(2, 3),
            floats(0, 0, 0),
            100 * np.eye(3, dtype=np.float32),
            np.zeros((3, 3), np.float32),
        ),
        own=looking_at(0, 6),
        calibration=Calibration(3.0, looking_at(0, 4), looking_at(0, 13), Conformal(floats(0.25, 0.5, 0.75))),
        gate_weight=0.6,
        metrics={"accuracy": 0.5},
    )
    return replace(plain, **changed)
