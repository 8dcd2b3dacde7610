"""Every kind of router there is."""

from collections.abc import Iterator

import pytest

from experts import kinds
from experts.kinds import find
from tests.doubles import routers as doubles


@pytest.fixture(scope="module", params=sorted(kinds.ROUTERS | doubles.ROUTERS))
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every registered kind, and the double."""
    with pytest.MonkeyPatch.context() as patch:
        for name, target in doubles.ROUTERS.items():
            patch.setitem(kinds.ROUTERS, name, target)
        yield str(request.param)


@pytest.fixture(scope="module")
def vectorial(kind: str) -> str:
    """Only kinds that read vectors."""
    if not find("router kind", kinds.ROUTERS, kind).needs_vectors:
        pytest.skip("reads words only")
    return kind
