"""From shares to probabilities that hold: confidence, and the risk of missing the right expert."""

from dataclasses import dataclass

import numpy as np

from experts.routing.base import Floats, Places
from experts.routing.judging import Logistic

# Shares of the right expert that are kept to read quantiles from.
KEPT = 4096


def confidence_features(share: Floats, familiar: Floats, agreement: Floats) -> Floats:
    """What confidence is read from, float32[n, 4].

    The largest share as log-odds; its logarithmic lead over the second; how familiar the query looks; how many of the
    router's parts name the same expert, as a share. The last two let confidence fall for strangers, whom the shares
    alone do not show.
    """
    top = -np.partition(-share, min(1, share.shape[1] - 1), axis=1)[:, :2]
    best = np.clip(top[:, 0], 1e-6, 1 - 1e-6)
    second = np.clip(top[:, 1], 1e-6, 1) if share.shape[1] > 1 else np.full(len(share), 1e-6, np.float32)
    odds = np.log(best / (1 - best))
    return np.stack([odds, np.log(best / second), familiar, agreement], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Conformal:
    """Split conformal prediction: which experts must be asked so that the right one is rarely missed.

    ``right_shares`` float32[c], ascending: the share the right expert got, of queries that nothing was learned from.
    Asking every expert from the threshold on misses at most the given rate of queries like those, on average over
    calibration sets (Vovk et al. 2005; Angelopoulos & Bates 2023, section 1).
    """

    right_shares: Floats

    def threshold(self, max_misroute: float) -> float:
        """The share from which on an expert is asked; 0, so everybody, where too little was measured to promise."""
        n = len(self.right_shares)
        allowed = int(np.floor((n + 1) * max_misroute))
        return float(self.right_shares[allowed - 1]) if 1 <= allowed <= n else 0.0


def conformal(share: Floats, owner: Places, *, seed: int = 0) -> Conformal:
    """From held-out ``share`` float32[n, E] and the places of the right experts."""
    right = share[np.arange(len(owner)), owner]
    if len(right) > KEPT:
        right = np.random.default_rng(seed).choice(right, KEPT, replace=False)
    return Conformal(np.sort(right).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that turns scores into probabilities. ``temperature`` divides the log-probabilities of the gate."""

    temperature: float
    confidence: Logistic
    coverage: Logistic
    conformal: Conformal
