"""What people ask stands in the database and in their files, and nowhere else."""

import redis

from tests.acceptance.conftest import StackMaker
from tests.acceptance.harness import errors, finish, outputs, submit, wait_for, write_batch
from worker.app import PREFIX

CANARY = "kanarienvogel-5f2a"


def everything_in(broker: "redis.Redis[bytes]") -> bytes:
    """Every key with its value, whatever its type."""
    read = {
        b"none": lambda key: "gone since it was listed: a queue exists only while it holds something",
        b"string": broker.get,
        b"list": lambda key: broker.lrange(key, 0, -1),
        b"hash": broker.hgetall,
        b"set": broker.smembers,
        b"zset": lambda key: broker.zrange(key, 0, -1, withscores=True),
    }
    return b"\n".join(key + repr(read[broker.type(key)](key)).encode() for key in broker.scan_iter())


def test_no_word_of_a_query_reaches_redis_or_a_log(make_stack: StackMaker) -> None:
    stack = make_stack(engine="poison", kind="poison", MOE_LOG_LEVEL="debug")
    stack.start("control", "router", "beat")
    client = stack.client()
    texts = [f"{CANARY} {n} about alpha" for n in range(30)]
    texts[3], texts[4] = f"BROKEN {CANARY} about alpha", f"ROUTEBREAK {CANARY} about alpha"
    batch = write_batch(stack.home / "batch.jsonl", texts)
    batch.write_text(batch.read_text() + f'{{"id": "x", "text": ["{CANARY}"]}}\n')
    run = submit(client, batch, top_k=1)

    with redis.Redis.from_url(stack.backends.redis_url) as broker:
        wait_for(lambda: broker.llen(f"{PREFIX}expert.alpha"), "messages that wait")
        waiting = everything_in(broker)
        assert b"answer_chunk" in waiting
        assert CANARY.encode() not in waiting
        # A shard's messages are its chunks', and what the chord counts: ids, not texts.
        assert max(map(len, broker.lrange(f"{PREFIX}expert.alpha", 0, -1))) < 4096
        stack.start("expert")
        ended = finish(client, run)
        assert CANARY.encode() not in everything_in(broker)

    assert len(outputs(client, ended)) == 28
    assert {key: line["error"]["code"] for key, line in errors(client, ended).items()} == {
        "q3": "engine_error",
        "q4": "routing_failed",
        "x": "invalid_request",
    }
    assert stack.logs().count("item.failed") == 2  # the errors quote the queries; their log lines must not
    assert CANARY not in stack.logs()
