"""The tables."""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None


def upgrade() -> None:
    op.create_table('expert',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('serving', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('live_version_id', sa.Integer(), nullable=True),
    sa.Column('live_knowledge_id', sa.Integer(), nullable=True),
    sa.Column('retired_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.CheckConstraint("name ~ '^[a-z][a-z0-9_]{0,49}$'", name='name_is_plain'),
    sa.CheckConstraint('NOT serving OR live_version_id IS NOT NULL', name='serving_needs_a_version'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('name')
    )
    op.create_table('job',
    sa.Column('epoch', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('attempts', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_before', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('published_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('subject', sa.String(), nullable=True),
    sa.Column('params', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('wanted', sa.String(), nullable=True),
    sa.Column('progress', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('result', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('error_code', sa.String(), nullable=True),
    sa.Column('error_message', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name='leased_while_running'),
    sa.CheckConstraint("state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name='state_is_known'),
    sa.CheckConstraint("wanted IS NULL OR wanted IN ('cancel', 'pause')", name='wanted_is_known'),
    sa.CheckConstraint('(lease_until IS NULL) = (owner IS NULL)', name='lease_has_an_owner'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('job_open', 'job', ['state', 'id'], unique=False, postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_index('job_subject', 'job', ['subject'], unique=True, postgresql_where=sa.text("state IN ('queued', 'running', 'paused')"))
    op.create_table('router_version',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('encoder', sa.String(), nullable=True),
    sa.Column('artefact', sa.String(), nullable=False),
    sa.Column('artefact_sha256', sa.String(), nullable=False),
    sa.Column('content_sha256', sa.String(), nullable=False),
    sa.Column('experts', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('metrics', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('promoted_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("state IN ('trained', 'live', 'retired')", name='state_is_known'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('router_version_live', 'router_version', ['state'], unique=True, postgresql_where=sa.text("state = 'live'"))
    op.create_table('run',
    sa.Column('epoch', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('attempts', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_before', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('published_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('public_id', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=True),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('ending', sa.String(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('top_k', sa.SmallInteger(), nullable=False),
    sa.Column('strategy', sa.String(), nullable=False),
    sa.Column('deadline', sa.DateTime(timezone=True), nullable=True),
    sa.Column('paused_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('idempotency_key', sa.String(), nullable=True),
    sa.Column('request_hash', sa.String(), nullable=True),
    sa.Column('source', sa.String(), nullable=True),
    sa.Column('n_total', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_rejected', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_ok', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_error', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('output', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('errors', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.CheckConstraint("(state = 'finalizing') OR lease_until IS NULL", name='leased_only_while_finalizing'),
    sa.CheckConstraint("kind IN ('batch', 'ask', 'preview')", name='kind_is_known'),
    sa.CheckConstraint("state IN ('validating', 'in_progress', 'cancelling', 'expiring', 'finalizing', 'completed', 'cancelled', 'expired')", name='state_is_known'),
    sa.CheckConstraint("state NOT IN ('completed', 'cancelled', 'expired') OR kind = 'preview' OR (output IS NOT NULL AND errors IS NOT NULL)", name='ended_means_files_are_written'),
    sa.CheckConstraint("state NOT IN ('completed', 'cancelled', 'expired') OR n_ok + n_error = n_total", name='ended_means_every_line_has_an_outcome'),
    sa.CheckConstraint('(lease_until IS NULL) = (owner IS NULL)', name='lease_has_an_owner'),
    sa.CheckConstraint('n_ok + n_error <= n_total', name='no_more_outcomes_than_lines'),
    sa.CheckConstraint('n_rejected <= n_error', name='rejected_lines_are_errors'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('idempotency_key'),
    sa.UniqueConstraint('public_id')
    )
    op.create_index('run_open', 'run', ['state', 'id'], unique=False, postgresql_where=sa.text("state NOT IN ('completed', 'cancelled', 'expired')"))
    op.create_index('run_name', 'run', ['name'], unique=False, postgresql_where=sa.text('name IS NOT NULL'))
    op.create_index('run_preview', 'run', ['created_at'], unique=False, postgresql_where=sa.text("kind = 'preview'"))
    op.create_index('run_ended', 'run', ['finished_at'], unique=False, postgresql_where=sa.text("finished_at IS NOT NULL AND kind <> 'preview'"))
    op.create_index('run_lease', 'run', ['lease_until'], unique=False, postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.create_table('document',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('expert_id', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('title', sa.String(), nullable=False),
    sa.Column('text', sa.String(), nullable=False),
    sa.Column('sha256', sa.String(), nullable=False),
    sa.Column('added_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('expert_id', 'name')
    )
    op.create_table('exemplar',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('expert_id', sa.Integer(), nullable=True),
    sa.Column('text', sa.String(), nullable=False),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('exemplar_text', 'exemplar', [sa.literal_column('coalesce(expert_id, 0)'), sa.literal_column('md5(text)')], unique=True)
    op.create_index('exemplar_expert', 'exemplar', ['expert_id'], unique=False)
    op.create_table('expert_hour',
    sa.Column('expert_id', sa.Integer(), nullable=False),
    sa.Column('hour', sa.DateTime(timezone=True), nullable=False),
    sa.Column('n_queries', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_answered', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_errors', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_chunks', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('busy_ms', sa.Double(), server_default=sa.text('0'), nullable=False),
    sa.Column('confidence_sum', sa.Double(), server_default=sa.text('0'), nullable=False),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('expert_id', 'hour')
    )
    op.create_table('expert_version',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('expert_id', sa.Integer(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('engine', sa.String(), nullable=False),
    sa.Column('card', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('adapter', sa.String(), nullable=True),
    sa.Column('adapter_tree_sha256', sa.String(), nullable=True),
    sa.Column('adapter_sha256', sa.String(), nullable=True),
    sa.Column('base_sha256', sa.String(), nullable=True),
    sa.Column('metrics', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('verdict', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('job_id', sa.BigInteger(), nullable=True),
    sa.Column('promoted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.CheckConstraint('num_nulls(adapter, adapter_tree_sha256, adapter_sha256, base_sha256) IN (0, 4)', name='adapter_has_its_hashes'),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('expert_id', 'number')
    )
    op.create_table('feedback',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('idx', sa.Integer(), nullable=False),
    sa.Column('expert', sa.String(), nullable=False),
    sa.Column('positive', sa.Boolean(), nullable=True),
    sa.Column('correct_expert', sa.String(), nullable=True),
    sa.Column('correct_answer', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.CheckConstraint('positive IS NOT NULL OR correct_expert IS NOT NULL OR correct_answer IS NOT NULL', name='says_something'),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('feedback_run', 'feedback', ['run_id'], unique=False)
    op.create_index('feedback_said', 'feedback', ['created_at', 'expert', 'positive'], unique=False, postgresql_where=sa.text('positive IS NOT NULL'))
    op.create_table('job_event',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('job_id', sa.BigInteger(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('message', sa.String(), nullable=False),
    sa.Column('data', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('job_event_job', 'job_event', ['job_id', 'id'], unique=False)
    op.create_table('knowledge',
    sa.Column('id', sa.Integer(), sa.Identity(always=True), nullable=False),
    sa.Column('expert_id', sa.Integer(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('content_sha256', sa.String(), nullable=False),
    sa.Column('artefact', sa.String(), nullable=False),
    sa.Column('artefact_sha256', sa.String(), nullable=False),
    sa.Column('n_documents', sa.Integer(), nullable=False),
    sa.Column('n_passages', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('expert_id', 'number')
    )
    op.create_table('past_outcome',
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('idx', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('generation', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('error_code', sa.String(), nullable=False),
    sa.Column('error_message', sa.String(), nullable=False),
    sa.Column('line', postgresql.JSON(astext_type=sa.Text()), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'idx', 'generation')
    )
    op.create_table('query',
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('idx', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('line_no', sa.BigInteger(), nullable=False),
    sa.Column('custom_id', sa.String(), nullable=True),
    sa.Column('rejected', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('text', sa.String(), nullable=True),
    sa.Column('request', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('pinned', sa.String(), nullable=True),
    sa.CheckConstraint('rejected = (text IS NULL)', name='rejected_lines_have_no_text'),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'idx')
    )
    op.create_index('query_custom_id', 'query', ['run_id', 'custom_id'], unique=True, postgresql_where=sa.text('NOT rejected'))
    op.create_table('router_alert',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=True),
    sa.Column('expert', sa.String(), nullable=True),
    sa.Column('message', sa.String(), nullable=False),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('router_alert_unseen', 'router_alert', ['kind', sa.literal_column('coalesce(run_id, 0)'), sa.literal_column("coalesce(expert, '')")], unique=True, postgresql_where=sa.text('seen_at IS NULL'))
    op.create_index('router_alert_run', 'router_alert', ['run_id'], unique=False)
    op.create_table('shard',
    sa.Column('epoch', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('attempts', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_before', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('published_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('start', sa.Integer(), nullable=False),
    sa.Column('stop', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('depth', sa.SmallInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('chunks_left', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('n_queries', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('route_ms', sa.REAL(), nullable=True),
    sa.Column('combine_ms', sa.REAL(), nullable=True),
    postgresql.ExcludeConstraint((sa.text('int8range(run_id * 2147483648 + start, run_id * 2147483648 + stop)'), '&&'), where=sa.text("state IN ('planned', 'queued', 'routing', 'answering', 'combining')"), using='gist', name='open_shards_do_not_overlap'),
    sa.CheckConstraint("(state IN ('routing', 'combining')) = (lease_until IS NOT NULL)", name='leased_while_routing_or_combining'),
    sa.CheckConstraint("state IN ('planned', 'queued', 'routing', 'answering', 'combining', 'done', 'split', 'cancelled')", name='state_is_known'),
    sa.CheckConstraint('(lease_until IS NULL) = (owner IS NULL)', name='lease_has_an_owner'),
    sa.CheckConstraint('chunks_left >= 0', name='chunks_left_is_a_count'),
    sa.CheckConstraint('start < stop', name='holds_at_least_one_line'),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('shard_lease', 'shard', ['lease_until'], unique=False, postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.create_index('shard_open', 'shard', ['run_id', 'state'], unique=False, postgresql_where=sa.text("state IN ('planned', 'queued', 'routing', 'answering', 'combining')"))
    op.create_index('shard_planned', 'shard', ['run_id', 'id'], unique=False, postgresql_where=sa.text("state = 'planned'"))
    op.create_index('shard_run', 'shard', ['run_id'], unique=False)
    op.create_table('answer',
    sa.Column('run_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('idx', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('expert_id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('chunk_id', sa.BigInteger(), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('text', sa.String(), nullable=True),
    sa.Column('answered', sa.Boolean(), nullable=False),
    sa.Column('confidence', sa.REAL(), nullable=False),
    sa.Column('passages', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('ms', sa.REAL(), nullable=False),
    sa.Column('prompt_tokens', sa.Integer(), nullable=True),
    sa.Column('completion_tokens', sa.Integer(), nullable=True),
    sa.Column('finish_reason', sa.String(), nullable=True),
    sa.Column('error_code', sa.String(), nullable=True),
    sa.Column('error_message', sa.String(), nullable=True),
    sa.CheckConstraint('(text IS NULL) = (error_code IS NOT NULL)', name='a_text_or_an_error'),
    sa.CheckConstraint('confidence BETWEEN 0 AND 1', name='probability'),
    sa.ForeignKeyConstraint(['run_id', 'idx'], ['query.run_id', 'query.idx'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'idx', 'expert_id')
    )
    op.create_table('chunk',
    sa.Column('epoch', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('attempts', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_before', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('published_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('shard_id', sa.BigInteger(), nullable=False),
    sa.Column('expert_id', sa.Integer(), nullable=False),
    sa.Column('expert_version_id', sa.Integer(), nullable=False),
    sa.Column('knowledge_id', sa.Integer(), nullable=True),
    sa.Column('idxs', postgresql.ARRAY(sa.Integer()), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('depth', sa.SmallInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('busy_ms', sa.REAL(), nullable=True),
    sa.CheckConstraint("(state = 'leased') = (lease_until IS NOT NULL)", name='leased_has_a_lease'),
    sa.CheckConstraint("state IN ('queued', 'leased', 'done', 'dead', 'split', 'cancelled')", name='state_is_known'),
    sa.CheckConstraint('(lease_until IS NULL) = (owner IS NULL)', name='lease_has_an_owner'),
    sa.CheckConstraint('cardinality(idxs) > 0', name='holds_at_least_one_query'),
    sa.ForeignKeyConstraint(['expert_id'], ['expert.id'], ),
    sa.ForeignKeyConstraint(['expert_version_id'], ['expert_version.id'], ),
    sa.ForeignKeyConstraint(['knowledge_id'], ['knowledge.id'], ),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['shard_id'], ['shard.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('chunk_lease', 'chunk', ['lease_until'], unique=False, postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.create_index('chunk_open', 'chunk', ['run_id'], unique=False, postgresql_where=sa.text("state IN ('queued', 'leased')"))
    op.create_index('chunk_queued', 'chunk', ['expert_id', 'id'], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_index('chunk_shard', 'chunk', ['shard_id'], unique=False)
    op.create_index('chunk_run', 'chunk', ['run_id'], unique=False)
    op.create_table('decision',
    sa.Column('run_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('idx', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('router_version_id', sa.Integer(), nullable=False),
    sa.Column('experts', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('confidence', sa.REAL(), nullable=False),
    sa.Column('coverage', sa.REAL(), nullable=False),
    sa.Column('in_scope', sa.Boolean(), nullable=False),
    sa.Column('reason', sa.String(), nullable=False),
    sa.Column('explanation', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('embedding', sa.LargeBinary(), nullable=True),
    sa.CheckConstraint('confidence BETWEEN 0 AND 1 AND coverage BETWEEN 0 AND 1', name='probabilities'),
    sa.ForeignKeyConstraint(['run_id', 'idx'], ['query.run_id', 'query.idx'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'idx')
    )
    op.create_index('decision_outside', 'decision', ['run_id', 'idx'], unique=False, postgresql_where=sa.text('NOT in_scope'))
    op.create_table('outcome',
    sa.Column('run_id', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('idx', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('ok', sa.Boolean(), nullable=False),
    sa.Column('error_code', sa.String(), nullable=True),
    sa.Column('error_message', sa.String(), nullable=True),
    sa.Column('shard_id', sa.BigInteger(), nullable=True),
    sa.Column('epoch', sa.Integer(), nullable=True),
    sa.Column('line', postgresql.JSON(astext_type=sa.Text()), nullable=False),
    sa.CheckConstraint('ok = (error_code IS NULL)', name='an_error_has_a_code'),
    sa.ForeignKeyConstraint(['run_id', 'idx'], ['query.run_id', 'query.idx'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'idx')
    )
    op.create_index('outcome_error', 'outcome', ['run_id', 'error_code'], unique=False, postgresql_where=sa.text('NOT ok'))


def downgrade() -> None:
    op.drop_index('outcome_error', table_name='outcome', postgresql_where=sa.text('NOT ok'))
    op.drop_table('outcome')
    op.drop_index('decision_outside', table_name='decision', postgresql_where=sa.text('NOT in_scope'))
    op.drop_table('decision')
    op.drop_index('chunk_shard', table_name='chunk')
    op.drop_index('chunk_queued', table_name='chunk', postgresql_where=sa.text("state = 'queued'"))
    op.drop_index('chunk_open', table_name='chunk', postgresql_where=sa.text("state IN ('queued', 'leased')"))
    op.drop_index('chunk_lease', table_name='chunk', postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.drop_table('chunk')
    op.drop_table('answer')
    op.drop_index('shard_planned', table_name='shard', postgresql_where=sa.text("state = 'planned'"))
    op.drop_index('shard_open', table_name='shard', postgresql_where=sa.text("state IN ('planned', 'queued', 'routing', 'answering', 'combining')"))
    op.drop_index('shard_lease', table_name='shard', postgresql_where=sa.text('lease_until IS NOT NULL'))
    op.drop_table('shard')
    op.drop_index('query_custom_id', table_name='query', postgresql_where=sa.text('NOT rejected'))
    op.drop_table('query')
    op.drop_table('router_alert')
    op.drop_table('past_outcome')
    op.drop_table('knowledge')
    op.drop_index('job_event_job', table_name='job_event')
    op.drop_table('job_event')
    op.drop_table('feedback')
    op.drop_table('expert_version')
    op.drop_table('expert_hour')
    op.drop_index('exemplar_text', table_name='exemplar')
    op.drop_table('exemplar')
    op.drop_table('document')
    op.drop_index('run_open', table_name='run', postgresql_where=sa.text("state NOT IN ('completed', 'cancelled', 'expired')"))
    op.drop_table('run')
    op.drop_index('router_version_live', table_name='router_version', postgresql_where=sa.text("state = 'live'"))
    op.drop_table('router_version')
    op.drop_index('job_open', table_name='job', postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.drop_index('job_subject', table_name='job', postgresql_where=sa.text("state IN ('queued', 'running', 'paused')"))
    op.drop_table('job')
    op.drop_table('expert')
