"""Moving queries from experts that are full to the next best, for no more than a given loss."""

import numpy as np
from numpy.typing import NDArray

from experts.routing.base import Floats, Places


def balanced(share: Floats, room: NDArray[np.int64], *, budget: float) -> Places:
    """First choices int64[n] such that, where the budget allows, no expert gets more queries than its ``room``.

    ``share`` float32[n, E] are probabilities of being the right expert, so what a move costs is the share of the first
    choice less that of the new one; all moves together cost at most ``budget`` right answers per query. The cheapest
    moves are made first, each to the best expert that has room left.
    """
    n, n_experts = share.shape
    chosen: Places = share.argmax(axis=1).astype(np.int64)
    taken = np.bincount(chosen, minlength=n_experts)
    if not (taken > room).any():
        return chosen
    left = budget * n
    order = np.argsort(-share, axis=1, kind="stable")
    best = share[np.arange(n), chosen]
    second = share[np.arange(n), order[:, min(1, n_experts - 1)]]
    for row in np.argsort(best - second, kind="stable"):
        full = chosen[row]
        if taken[full] <= room[full]:
            continue
        for place in order[row, 1:]:
            cost = float(best[row] - share[row, place])
            if cost > left:
                break
            if taken[place] < room[place]:
                chosen[row] = place
                taken[full] -= 1
                taken[place] += 1
                left -= cost
                break
    return chosen


def utilisation(chosen: Places, n_experts: int) -> tuple[float, float]:
    """How even the load is: entropy as a share of the most there could be, and standard deviation over mean."""
    load = np.bincount(chosen, minlength=n_experts).astype(float)
    if n_experts < 2 or load.sum() == 0:
        return 1.0, 0.0
    part = load[load > 0] / load.sum()
    return float(-(part * np.log(part)).sum() / np.log(n_experts)), float(load.std() / load.mean())
