"""Which token comes next: the likeliest, or one drawn within top-p by a row's own numbers."""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from experts.serving.parameters import Sampling


class Draws:
    """A row's random numbers in [0, 1), one per token: the same for a seed whatever else is in the batch."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = Random(sampling.seed)

    def next(self) -> float:
        return self._random.random()


def choose(logits: Tensor, rows: Sequence[Draws | None]) -> tuple[list[int], list[float]]:
    """The next token of each row of ``logits`` float[n, vocabulary], and the probability the model gave it.

    None in ``rows`` takes the likeliest. The probability is the model's own, before temperature and top-p.
    """
    logits = logits.float()
    best, tokens = logits.max(-1)
    drawn = [at for at, row in enumerate(rows) if row is not None]
    if drawn:
        places = torch.tensor(drawn, device=logits.device)
        tokens[places] = _draw(logits[places], [row for row in rows if row is not None])
        best = logits.gather(-1, tokens[:, None])[:, 0]
    probabilities = (best - logits.logsumexp(-1)).exp()
    return tokens.tolist(), probabilities.tolist()


def _draw(logits: Tensor, rows: Sequence[Draws]) -> Tensor:
    """int64[n] by inverting the distribution within the fewest tokens that hold ``top_p`` (Holtzman et al., 2020)."""
    device = logits.device
    temperature = torch.tensor([row.sampling.temperature for row in rows], device=device)[:, None]
    top_p = torch.tensor([row.sampling.top_p for row in rows], device=device)[:, None]
    drawn = torch.tensor([row.next() for row in rows], device=device)[:, None]
    # Shifted first, so that a tiny temperature cannot make infinities of the logits.
    scaled = (logits - logits.max(-1, keepdim=True).values) / temperature
    probabilities, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    sums = probabilities.cumsum(-1)
    # Sums end short of the last draw by rounding at times; the last token that counts is taken then.
    places = (sums <= drawn * sums[:, -1:]).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    chosen: Tensor = order.gather(-1, places.minimum(last))[:, 0]
    return chosen
