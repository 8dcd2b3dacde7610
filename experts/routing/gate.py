"""The gating network, as it runs: numpy only. Training is ``experts.routing.gate_training``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts.routing.base import Floats, log_softmax

# Traits have length 1 and would start the network with outputs near nothing.
SCALE = 5.0


@dataclass(frozen=True, slots=True)
class Gate:
    """Traits → 256 → 128 → experts with ReLU between, and beside it a linear path from traits to experts.

    Each layer is (weight [out, in], bias [out]).
    """

    layers: Sequence[tuple[Floats, Floats]]
    straight: tuple[Floats, Floats]

    def __call__(self, traits: Floats) -> Floats:
        """Log-probabilities float32[n, E] for ``traits`` float32[n, f]."""
        scaled = traits * np.float32(SCALE)
        hidden: Floats = scaled
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, np.float32(0))
        weight, bias = self.layers[-1]
        straight = scaled @ self.straight[0].T + self.straight[1]
        return log_softmax((hidden @ weight.T + bias + straight).astype(np.float32))

    def arrays(self) -> dict[str, Floats]:
        """Its tensors by name."""
        named = {"gate.straight.weight": self.straight[0], "gate.straight.bias": self.straight[1]}
        for number, (weight, bias) in enumerate(self.layers):
            named[f"gate.{number}.weight"], named[f"gate.{number}.bias"] = weight, bias
        return named


def gate_from(arrays: Mapping[str, Floats]) -> Gate:
    """The gate whose ``arrays()`` these are. Raises KeyError."""
    n = len({name.split(".")[1] for name in arrays if name.startswith("gate.")} - {"straight"})
    return Gate(
        [(arrays[f"gate.{number}.weight"], arrays[f"gate.{number}.bias"]) for number in range(n)],
        (arrays["gate.straight.weight"], arrays["gate.straight.bias"]),
    )
