"""Guards: only the listed state moves, and epochs that never go back."""

from alembic import op
from sqlalchemy import String, column, table

revision = "0002"
down_revision = "0001"

# A copy of storage.states.MOVES as it was at this revision; later changes come as migrations of their own.
MOVES = {
    "run": {
        "validating": ("in_progress", "cancelling", "expiring"),
        "in_progress": ("finalizing", "cancelling", "expiring", "completed"),
        "cancelling": ("finalizing",),
        "expiring": ("finalizing",),
        "finalizing": ("completed", "cancelled", "expired"),
        "completed": ("in_progress",),
        "cancelled": ("in_progress",),
        "expired": ("in_progress",),
    },
    "shard": {
        "planned": ("queued", "cancelled"),
        "queued": ("routing", "cancelled"),
        "routing": ("queued", "answering", "done", "split", "cancelled"),
        "answering": ("combining", "cancelled"),
        "combining": ("answering", "done", "split", "cancelled"),
    },
    "chunk": {
        "queued": ("leased", "cancelled"),
        "leased": ("queued", "done", "dead", "split", "cancelled"),
    },
    "job": {
        "queued": ("running", "failed", "paused", "cancelled"),
        "running": ("queued", "succeeded", "failed", "paused", "cancelled"),
        "paused": ("queued", "cancelled"),
    },
    "router_version": {
        "trained": ("live", "retired"),
        "live": ("retired",),
        "retired": ("live",),
    },
}

CHECK_MOVE = """
CREATE FUNCTION check_state_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM state_move m
                   WHERE m.entity = TG_TABLE_NAME AND m.from_state = OLD.state AND m.to_state = NEW.state) THEN
        RAISE EXCEPTION 'state move not allowed: % % from % to %', TG_TABLE_NAME, OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""

CHECK_EPOCH = """
CREATE FUNCTION check_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'epoch of % % went back from % to %', TG_TABLE_NAME, OLD.id, OLD.epoch, NEW.epoch
        USING ERRCODE = 'check_violation';
END $$
"""

CHECK_GENERATION = """
CREATE FUNCTION check_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.generation <> OLD.generation + 1 THEN
        RAISE EXCEPTION 'run % has ended (%); it opens again only as its next generation', OLD.id, OLD.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""

LEASED = ("run", "shard", "chunk", "job")


# Rows of these are a few kilobytes. Up to a page they stay where they are: moving them out of line and compressing them
# costs more time than everything else that is done with them.
WIDE = ("decision", "answer", "outcome")


def upgrade() -> None:
    for name in WIDE:
        op.execute(f"ALTER TABLE {name} SET (toast_tuple_target = 8160)")
    op.execute(
        "CREATE TABLE state_move (entity text, from_state text, to_state text, PRIMARY KEY (entity, from_state, to_state))"
    )
    op.bulk_insert(
        table("state_move", column("entity", String), column("from_state", String), column("to_state", String)),
        [
            {"entity": entity, "from_state": before, "to_state": after}
            for entity, moves in MOVES.items()
            for before, afters in moves.items()
            for after in afters
        ],
    )
    op.execute(CHECK_MOVE)
    op.execute(CHECK_EPOCH)
    op.execute(CHECK_GENERATION)
    for entity in MOVES:
        op.execute(
            f"CREATE TRIGGER state_move BEFORE UPDATE OF state ON {entity} FOR EACH ROW"
            " WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION check_state_move()"
        )
    for entity in LEASED:
        op.execute(
            f"CREATE TRIGGER epoch BEFORE UPDATE OF epoch ON {entity} FOR EACH ROW"
            " WHEN (NEW.epoch < OLD.epoch) EXECUTE FUNCTION check_epoch()"
        )
    op.execute(
        "CREATE TRIGGER generation BEFORE UPDATE OF state ON run FOR EACH ROW"
        " WHEN (OLD.state IN ('completed', 'cancelled', 'expired') AND NEW.state IS DISTINCT FROM OLD.state)"
        " EXECUTE FUNCTION check_generation()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER generation ON run")
    for entity in LEASED:
        op.execute(f"DROP TRIGGER epoch ON {entity}")
    for entity in MOVES:
        op.execute(f"DROP TRIGGER state_move ON {entity}")
    op.execute("DROP FUNCTION check_generation()")
    op.execute("DROP FUNCTION check_epoch()")
    op.execute("DROP FUNCTION check_state_move()")
    op.execute("DROP TABLE state_move")
