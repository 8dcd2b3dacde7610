"""The Celery application, made from settings. Nothing happens when this module is imported."""

from celery import Celery
from kombu.entity import Queue

from worker import names
from worker.roles import ROLES, Role
from worker.settings import Settings

# A task may run for two hours; a message is given to somebody else after three times that. Recovery does not wait for
# it: the sweeper finds lost work in the database within seconds.
_TIME_LIMIT_S = 7_200
_VISIBILITY_S = 3 * _TIME_LIMIT_S
PREFIX = "moe:"
# Who publishes does not wait long for Redis: the row is committed, and the sweeper sends its message later.
_RETRY = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}


def create_app(settings: Settings, redis_url: str, role: Role | None = None) -> Celery:
    """The application for one process; ``role`` decides which task modules it loads, None loads none (senders)."""
    include = list(role.include) if role else []
    app = Celery("moe", broker=redis_url, backend=f"worker.results:Backend+{redis_url}", include=include)
    app.conf.update(
        broker_transport="worker.transport:Transport",
        # Messages are JSON and nothing else; pickled or unknown ones are refused.
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        result_accept_content=["json"],
        event_serializer="json",
        # A message is a hint. It is acknowledged after the work whatever came of it; the sweeper decides what is tried
        # again, so that a query that kills workers cannot come back for ever.
        task_acks_late=True,
        task_acks_on_failure=True,
        task_acks_on_timeout=True,
        task_reject_on_worker_lost=False,
        task_time_limit=_TIME_LIMIT_S,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # No message waits behind a busy worker while another one is free.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_queues=[Queue(queue) for known in ROLES.values() for queue in known.queues],  # type: ignore[no-untyped-call]
        task_default_queue=names.CONTROL,
        task_ignore_result=True,
        task_track_started=False,
        task_send_sent_event=True,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_proc_alive_timeout=60,
        worker_max_tasks_per_child=2000,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        task_publish_retry_policy=_RETRY,
        broker_transport_options={
            "global_keyprefix": PREFIX,
            "visibility_timeout": _VISIBILITY_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "worker.cycle:InteractiveFirst",
            "priority_steps": [0],  # priorities are queues of their own; fewer keys to wait on
        },
        result_backend_transport_options={"global_keyprefix": PREFIX, "retry_policy": _RETRY},
        redis_socket_timeout=10,
        redis_socket_connect_timeout=5,
        redis_socket_keepalive=True,
        result_expires=600,
        result_chord_expires=_VISIBILITY_S,
        beat_scheduler="celery.beat:Scheduler",  # in memory: nothing pickled to disk
        beat_schedule={
            names.SWEEP: {
                "task": names.SWEEP,
                "schedule": settings.pipeline.sweep_seconds,
                "options": {"queue": names.CONTROL, "expires": 2 * settings.pipeline.sweep_seconds + 10},
            }
        },
    )
    return app
