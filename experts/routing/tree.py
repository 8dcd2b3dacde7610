"""Experts below experts: going down from broad fields to narrow ones, level by level."""

from collections.abc import Mapping, Sequence

import numpy as np

from experts.routing.base import Floats


def by_level(share: Floats, experts: Sequence[str], parents: Mapping[str, str | None]) -> Floats:
    """Shares after going down the tree level by level, float32[n, E]; the same where no expert has a parent.

    At each level the branch with the largest sum of shares is entered, and everything beside it is halved: a broad
    field that several experts divide among them is not beaten by a narrow one that has its share alone.
    """
    if not any(parents.get(name) in experts for name in experts):
        return share
    place = {name: number for number, name in enumerate(experts)}
    paths = [path(name, experts, parents) for name in experts]
    weight = np.ones_like(share)
    depth = max(map(len, paths))
    inside = np.ones(share.shape, bool)
    for level in range(depth):
        branch = np.array([place[p[level]] if level < len(p) else place[p[-1]] for p in paths])
        sums = np.zeros_like(share)
        for column, of in enumerate(branch):
            sums[:, of] += np.where(inside[:, column], share[:, column], 0)
        best = sums.argmax(axis=1)
        entered = branch[None, :] == best[:, None]
        weight = np.where(inside & ~entered, weight * 0.5, weight)
        inside &= entered
    weighted = share * weight
    result: Floats = (weighted / weighted.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def path(name: str, experts: Sequence[str], parents: Mapping[str, str | None]) -> list[str]:
    """From the root down to the expert; a parent that is not there, or a ring, ends the way up."""
    way = [name]
    while (above := parents.get(way[0])) in experts and above is not None and above not in way:
        way.insert(0, above)
    return way
