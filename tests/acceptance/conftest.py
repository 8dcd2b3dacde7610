from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from storage.database import transact
from tests.acceptance.harness import Stack, stack_on
from tests.support.experts import serve
from tests.support.servers import Backends

ROLES = ("control", "router", "expert", "beat")
StackMaker = Callable[..., Stack]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/acceptance/" in str(item.path):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture
def make_stack(tmp_path: Path, backends: Backends) -> Iterator[StackMaker]:
    """Makes a stack that serves small experts with the given engine and router kind; no process runs yet."""
    with ExitStack() as cleanup:

        def make(
            *, engine: str = "echo", kind: str = "heuristic", backends: Backends = backends, **extra: str
        ) -> Stack:
            stack = cleanup.enter_context(stack_on(tmp_path, backends, **extra))
            client = stack.client()
            transact(client.engine, lambda c: serve(c, tmp_path, engine=engine, kind=kind))
            return stack

        yield make
