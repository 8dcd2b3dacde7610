"""The nearest mean: one direction per expert, that of its exemplars' sum."""

from functools import cached_property

from experts.encoders.base import Vectors
from experts.routing.base import Floats
from experts.routing.kind import Kind
from experts.routing.known import Queries
from experts.routing.votes import centroid_scores, centroids


class Router(Kind):
    @cached_property
    def _centres(self) -> Vectors:
        return centroids(self.known.vectors, self.known.owner, len(self.known.experts))

    def score(self, queries: Queries) -> Floats:
        return centroid_scores(queries.vectors, self._centres)
