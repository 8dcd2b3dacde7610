"""Moving queries from experts that are full to the next best, for no more than a given loss."""

import heapq

import numpy as np
from numpy.typing import NDArray

from experts.routing.base import Floats, Places


def balanced(share: Floats, room: NDArray[np.int64], *, budget: float, first: Places | None = None) -> Places:
    """Choices int64[n] such that, where the budget allows, no expert gets more queries than its ``room``.

    ``first`` is where queries go before anything is moved; by default to their largest share. ``share`` float32[n, E]
    are probabilities of being the right expert, so what a move costs is the share of the first choice less that of the
    new one; all moves together cost at most ``budget`` right answers per query. The cheapest move comes first, each to
    the best expert that has room left and is not out of the question (share 0).
    """
    n, n_experts = share.shape
    chosen: Places = (share.argmax(axis=1) if first is None else first).astype(np.int64)
    taken = np.bincount(chosen, minlength=n_experts)
    order = np.argsort(-share, axis=1, kind="stable")
    moves: list[tuple[float, int, int]] = []

    def offer(row: int) -> None:
        for place in order[row].tolist():
            if place != chosen[row] and share[row, place] > 0 and taken[place] < room[place]:
                heapq.heappush(moves, (float(share[row, chosen[row]] - share[row, place]), row, place))
                return

    for row in np.flatnonzero(taken[chosen] > room[chosen]).tolist():
        offer(row)
    left = budget * n
    while moves:
        cost, row, place = heapq.heappop(moves)
        if cost > left:
            break
        if taken[chosen[row]] <= room[chosen[row]]:
            continue
        if taken[place] >= room[place]:  # filled up since; the next best may do
            offer(row)
            continue
        taken[chosen[row]] -= 1
        taken[place] += 1
        chosen[row] = place
        left -= cost
    return chosen


def utilisation(chosen: Places, n_experts: int) -> tuple[float, float]:
    """How even the load is: entropy as a share of the most there could be, and standard deviation over mean."""
    load = np.bincount(chosen, minlength=n_experts).astype(float)
    if n_experts < 2 or load.sum() == 0:
        return 1.0, 0.0
    part = load[load > 0] / load.sum()
    entropy = float(-(part * np.log(part)).sum()) + 0.0
    return entropy / float(np.log(n_experts)), float(load.std() / load.mean())
