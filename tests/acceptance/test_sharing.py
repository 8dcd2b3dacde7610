"""Runs side by side: nobody waits for a big one to end, and a question passes them all."""

from jobs.ask import ask
from jobs.submit import Priority
from storage import runs
from storage.database import transact
from tests.acceptance.conftest import ROLES, StackMaker
from tests.acceptance.harness import Stack, count, finish, submit, wait_for, write_batch
from worker.runtime import Runtime


def ended_before(client: Runtime, first: int, second: int) -> bool:
    query = "SELECT (SELECT finished_at FROM run WHERE id = :a) < (SELECT finished_at FROM run WHERE id = :b)"
    return bool(count(client.engine, f"SELECT ({query})::int", a=first, b=second))


def texts(n: int) -> list[str]:
    return [f"question {i} about alpha" for i in range(n)]


def start(make_stack: StackMaker) -> tuple[Stack, Runtime]:
    stack = make_stack(engine="slow", MOE_PIPELINE__SHARD_SIZE_MAX="16", MOE_PIPELINE__WINDOW_SHARDS="4")
    stack.start(*ROLES)
    return stack, stack.client()


def test_a_small_run_does_not_wait_for_a_big_one(make_stack: StackMaker) -> None:
    stack, client = start(make_stack)
    big = submit(client, write_batch(stack.home / "big.jsonl", texts(480)), top_k=1)
    wait_for(lambda: count(client.engine, "SELECT count(*) FROM answer"), "the big run to be under way")
    small = submit(client, write_batch(stack.home / "small.jsonl", texts(32)), top_k=1)

    finish(client, small)

    assert transact(client.engine, lambda c: runs.view(c, big.id)).n_ok < 480 / 2
    finish(client, big)


def test_an_urgent_run_gets_the_greater_share(make_stack: StackMaker) -> None:
    stack, client = start(make_stack)
    low = submit(client, write_batch(stack.home / "l.jsonl", texts(320)), top_k=1, priority=Priority.LOW)
    high = submit(client, write_batch(stack.home / "h.jsonl", texts(320)), top_k=1, priority=Priority.HIGH)

    finish(client, high)
    finish(client, low)

    assert ended_before(client, high.id, low.id)


def test_a_question_passes_every_batch(make_stack: StackMaker) -> None:
    stack, client = start(make_stack)
    big = submit(client, write_batch(stack.home / "big.jsonl", texts(480)), top_k=1)
    wait_for(lambda: count(client.engine, "SELECT count(*) FROM answer"), "the big run to be under way")

    replies = [ask(client, f"question {n} about beta") for n in range(3)]

    assert [reply.text for reply in replies] == [f"question {n} about beta" for n in range(3)]
    assert transact(client.engine, lambda c: runs.view(c, big.id)).n_ok < 480 / 2
    finish(client, big)


def test_the_window_of_shards_holds_for_all_runs_together(make_stack: StackMaker) -> None:
    stack, client = start(make_stack)
    submitted = [
        submit(client, write_batch(stack.home / f"{name}.jsonl", texts(160)), top_k=1) for name in ("a", "b", "c")
    ]
    most = 0

    def ended() -> bool:
        nonlocal most
        under_way = "SELECT count(*) FROM shard WHERE state IN ('queued', 'routing', 'answering', 'combining')"
        most = max(most, count(client.engine, under_way))
        return count(client.engine, "SELECT count(*) FROM run WHERE state = 'completed'") == len(submitted)

    wait_for(ended, "the runs to end", timeout_s=60)

    assert (
        0 < most <= 4 + 2 * (len(submitted) - 1)
    )  # the first filled the window alone; no later one gets less than two
    for run in submitted:
        finish(client, run)
