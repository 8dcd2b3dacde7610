"""Nearest exemplars: each of the thirty votes for its expert with its cosine."""

from experts.routing.base import Floats
from experts.routing.kind import Kind
from experts.routing.known import Queries
from experts.routing.search import Near
from experts.routing.votes import vote

_VOTERS = 30


class Router(Kind):
    def score(self, queries: Queries) -> Floats:
        near = Near(queries.near.cosines[:, :_VOTERS], queries.near.places[:, :_VOTERS])
        return vote(near, self.known.owner, len(self.known.experts))
