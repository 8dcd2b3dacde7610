"""Training the gating network: 384 → 256 → 128 → experts, noisy top-k, a load-balancing loss.

Noise and balance follow Shazeer et al. 2017, "Outrageously Large Neural Networks", equations 3–6.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experts.encoders.base import Vectors
from experts.routing.base import Floats

HIDDEN = (256, 128)
_DROPOUT = 0.1
_EPOCHS = 30
_BATCH = 128
_RATE = 4e-3
_WEIGHT_DECAY = 1e-2
_BALANCE = 0.01


class Gate(nn.Module):
    """The network, with the noise it is trained under."""

    def __init__(self, dimension: int, n_experts: int) -> None:
        super().__init__()
        sizes = (dimension, *HIDDEN)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(_DROPOUT)]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], n_experts))
        self.noise = nn.Linear(dimension, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, E]; while training with learned noise on them."""
        logits: Tensor = self.body(x)
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(self.noise(x))
        return logits


def balance_loss(logits: Tensor, k: int) -> Tensor:
    """Squared coefficient of variation of what each expert would be sent if only the top ``k`` were asked."""
    top = torch.topk(logits, min(k, logits.shape[1]), dim=1)
    gates = torch.zeros_like(logits).scatter(1, top.indices, F.softmax(top.values, dim=1))
    importance = gates.sum(dim=0)
    return importance.var(unbiased=False) / (importance.mean() ** 2 + 1e-9)


def train_gate(
    vectors: Vectors, owner: NDArray[np.int64], n_experts: int, *, top_k: int, seed: int
) -> list[tuple[Floats, Floats]]:
    """The layers (weight, bias) of a gate trained on ``vectors`` float32[m, d] and their experts' places."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    gate = Gate(vectors.shape[1], n_experts)
    x, y = torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(owner)
    counts = torch.bincount(y, minlength=n_experts).clamp(min=1)
    class_weight = counts.float().mean() / counts
    optimizer = torch.optim.AdamW(gate.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    steps = _EPOCHS * -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gate.train()
    for _ in range(_EPOCHS):
        for batch in torch.split(torch.randperm(len(x), generator=generator), _BATCH):
            logits = gate(x[batch])
            loss = F.cross_entropy(logits, y[batch], weight=class_weight, label_smoothing=0.05)
            loss = loss + _BALANCE * balance_loss(logits, top_k)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    linear = [module for module in gate.body if isinstance(module, nn.Linear)]
    return [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in linear]


def fit_temperature(logits: Floats, owner: NDArray[np.int64]) -> float:
    """The temperature that minimises the negative log likelihood of held-out ``logits`` float32[m, E]."""
    x, y = torch.from_numpy(logits), torch.from_numpy(owner)
    candidates: Sequence[float] = np.exp(np.linspace(np.log(0.05), np.log(10), 120)).tolist()
    losses = [float(F.cross_entropy(x / temperature, y)) for temperature in candidates]
    return candidates[int(np.argmin(losses))]
