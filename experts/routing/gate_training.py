"""Training the gating network: traits → 256 → 128 → experts, noisy top-k, a load-balancing loss.

Noise and balance follow Shazeer et al. 2017, "Outrageously Large Neural Networks", equations 3-6. The linear path
beside the network learns what many narrow experts need, the network what few broad ones do.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.routing.base import Floats, Places
from experts.routing.gate import SCALE, Gate

HIDDEN = (256, 128)
_DROPOUT = 0.1
_EPOCHS = 30
_MOST_STEPS = 2_000
_BATCH = 128
_RATE = 2e-3
_WEIGHT_DECAY = 1e-2
_SMOOTHING = 0.05
_BALANCE = 0.01


class GateNetwork(nn.Module):
    """The network, with the noise it is trained under."""

    def __init__(self, dimension: int, n_experts: int) -> None:
        super().__init__()
        sizes = (dimension, *HIDDEN)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(_DROPOUT)]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], n_experts))
        self.straight = nn.Linear(dimension, n_experts)
        self.noise = nn.Linear(dimension, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, E]; while training with learned noise on them."""
        logits: Tensor = self.body(x) + self.straight(x)
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(self.noise(x) - 3)
        return logits


def balance_loss(logits: Tensor, k: int) -> Tensor:
    """Squared coefficient of variation of what each expert would be sent if only the top ``k`` were asked."""
    top = torch.topk(logits, min(k, logits.shape[1]), dim=1)
    gates = torch.zeros_like(logits).scatter(1, top.indices, F.softmax(top.values, dim=1))
    importance = gates.sum(dim=0)
    return importance.var(unbiased=False) / (importance.mean() ** 2 + 1e-9)


def train_gate(traits: Floats, owner: Places, n_experts: int, *, top_k: int, seed: int) -> Gate:
    """A gate trained on ``traits`` float32[m, f] and the places of their experts.

    Experts with few exemplars weigh more, by the root of how few: by their full share a handful of exemplars would
    shout down hundreds.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = GateNetwork(traits.shape[1], n_experts)
    x = torch.from_numpy(np.ascontiguousarray(traits, np.float32) * np.float32(SCALE))
    y = torch.from_numpy(owner)
    counts = torch.bincount(y, minlength=n_experts).clamp(min=1).float()
    class_weight = (counts.mean() / counts).sqrt()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    batch = max(_BATCH, -(-len(x) * _EPOCHS // _MOST_STEPS))
    steps = _EPOCHS * -(-len(x) // batch)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.randperm(len(x), generator=generator), batch):
            logits = network(x[rows])
            loss = F.cross_entropy(logits, y[rows], weight=class_weight, label_smoothing=_SMOOTHING)
            loss = loss + _BALANCE * balance_loss(logits, top_k)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
    linear = [module for module in network.body if isinstance(module, nn.Linear)]
    return Gate([_arrays(layer) for layer in linear], _arrays(network.straight))


def _arrays(layer: nn.Linear) -> tuple[Floats, Floats]:
    return layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
