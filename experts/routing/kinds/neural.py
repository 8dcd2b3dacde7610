"""The gating network alone."""

from functools import cached_property

from experts.routing.base import Floats
from experts.routing.gate import Gate, gate_from
from experts.routing.kind import Arrays, Kind
from experts.routing.known import Known, Queries


class Router(Kind):
    @staticmethod
    def learn(known: Known, *, top_k: int, seed: int) -> Arrays:
        from experts.routing.gate_training import train_gate  # torch: not where routers only run

        return train_gate(known.traits, known.owner, len(known.experts), top_k=top_k, seed=seed).arrays()

    @cached_property
    def _gate(self) -> Gate:
        return gate_from(self.learned)

    def score(self, queries: Queries) -> Floats:
        return self._gate(queries.traits)
