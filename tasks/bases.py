"""The base model and what hangs on it, as training and answering use them."""

from dataclasses import replace
from typing import Any

from experts.adapters.spec import LoraSpec, for_complex_domain, suggested
from experts.engines.base import EngineSpec, GenerativeSpec, RemoteSpec
from experts.language.base import Base, BaseSpec, load_base
from tasks.models import Resident
from worker.settings import Settings

_bases: Resident[Base] = Resident(1)


def base(settings: Settings) -> Base:
    """The process's base, loaded at its first use. Raises ModelUnusable."""
    chosen = settings.base
    spec = BaseSpec(chosen.name, chosen.dtype, chosen.device, chosen.load_in_8bit, chosen.threads)
    return _bases.get(spec, lambda: load_base(spec))


def lora_spec(settings: Settings, base: Base, *, rank: int | None = None, complex_domain: bool = False) -> LoraSpec:
    """How an adapter on this base is trained. Raises CannotTrain for settings that make no sense."""
    training = settings.training
    rank = rank or training.rank
    wanted: dict[str, Any] = {
        "rank": rank,
        "alpha": training.alpha or (None if rank is None else 2 * rank),
        "target_modules": None if training.target_modules is None else tuple(training.target_modules),
        "learning_rate": training.learning_rate,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "max_length": training.max_length,
        "max_seconds": training.max_seconds,
    }
    said = {name: value for name, value in wanted.items() if value is not None}
    spec = replace(suggested(base.num_parameters), patience=training.patience, seed=training.seed, **said)
    return for_complex_domain(spec) if complex_domain else spec


def engine_spec(settings: Settings) -> EngineSpec:
    """What every engine is told of the settings."""
    base, serving = settings.base, settings.serving
    return EngineSpec(
        settings.engine.passages,
        settings.engine.answer_threshold,
        GenerativeSpec(
            base.name,
            base.dtype,
            base.device,
            base.load_in_8bit,
            base.threads,
            max_tokens=serving.max_tokens,
            adapters=serving.adapters,
            adapter_bytes=None if serving.adapter_megabytes is None else serving.adapter_megabytes * 2**20,
            rows=serving.rows,
            tokens=serving.tokens,
            prompt_tokens=serving.prompt_tokens,
        ),
        _remote(settings),
    )


def _remote(settings: Settings) -> RemoteSpec | None:
    remote = settings.remote
    if remote.base_url is None:
        return None
    return RemoteSpec(
        remote.base_url,
        None if remote.api_key is None else remote.api_key.get_secret_value(),
        remote.model,
        timeout_seconds=remote.timeout_seconds,
        retries=remote.retries,
        concurrency=remote.concurrency,
        requests_per_minute=remote.requests_per_minute,
        max_tokens=settings.serving.max_tokens,
        logprobs=remote.logprobs,
    )
