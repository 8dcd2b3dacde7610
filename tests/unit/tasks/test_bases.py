import pytest

from experts.adapters.spec import suggested
from experts.errors import CannotTrain
from experts.language.base import Base
from tasks import bases
from tasks.models import Resident
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import configure


@pytest.fixture
def home(bench: Bench, tiny_base: str) -> Bench:
    configure(bench, "base", name=tiny_base)
    return bench


def test_a_base_is_loaded_once_a_process(home: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "_bases", Resident[Base](1))

    first = bases.base(home.runtime.settings)

    assert bases.base(home.runtime.settings) is first
    configure(home, "base", dtype="bfloat16")
    other = bases.base(home.runtime.settings)
    assert other is not first
    assert str(other.model.dtype) == "torch.bfloat16"


def test_what_is_left_open_goes_by_the_size_of_the_base(home: Bench) -> None:
    base = bases.base(home.runtime.settings)
    expected = suggested(base.num_parameters)

    found = bases.lora_spec(home.runtime.settings, base)

    assert (found.rank, found.alpha, found.target_modules) == (expected.rank, expected.alpha, expected.target_modules)
    assert (found.learning_rate, found.epochs, found.batch_size) == (
        expected.learning_rate,
        expected.epochs,
        expected.batch_size,
    )
    assert (found.patience, found.max_seconds, found.seed) == (4, None, 0)


def test_settings_and_the_request_win_over_what_is_suggested(home: Bench) -> None:
    base = bases.base(home.runtime.settings)
    configure(home, "training", rank=4, target_modules=["q_proj"], epochs=2.0, seed=5, max_seconds=9.0)

    by_settings = bases.lora_spec(home.runtime.settings, base)
    by_request = bases.lora_spec(home.runtime.settings, base, rank=6)
    configure(home, "training", alpha=3)
    with_alpha = bases.lora_spec(home.runtime.settings, base, rank=6)

    assert (by_settings.rank, by_settings.alpha, by_settings.target_modules) == (4, 8, ("q_proj",))
    assert (by_settings.epochs, by_settings.seed, by_settings.max_seconds) == (2.0, 5, 9.0)
    assert (by_request.rank, by_request.alpha) == (6, 12)
    assert (with_alpha.rank, with_alpha.alpha) == (6, 3)


def test_a_complex_domain_gets_more_of_what_was_asked_for(home: Bench) -> None:
    base = bases.base(home.runtime.settings)

    found = bases.lora_spec(home.runtime.settings, base, rank=6, complex_domain=True)

    assert (found.rank, found.alpha) == (14, 24)


def test_settings_that_make_no_sense_are_refused(home: Bench) -> None:
    configure(home, "training", rank=4000)

    with pytest.raises(CannotTrain, match="rank of the adapter is 4000"):
        bases.lora_spec(home.runtime.settings, bases.base(home.runtime.settings))


def test_engines_are_told_of_base_and_serving(home: Bench, tiny_base: str) -> None:
    configure(home, "serving", max_tokens=7, adapters=3, adapter_megabytes=2, rows=9)
    configure(home, "engine", passages=6, answer_threshold=0.5)

    found = bases.engine_spec(home.runtime.settings)

    assert (found.passages, found.answer_threshold) == (6, 0.5)
    assert found.generative is not None
    assert (found.generative.base, found.generative.dtype) == (tiny_base, "float32")
    assert (found.generative.max_tokens, found.generative.adapters, found.generative.rows) == (7, 3, 9)
    assert found.generative.adapter_bytes == 2 * 1024 * 1024
    configure(home, "serving", adapter_megabytes=None)
    again = bases.engine_spec(home.runtime.settings).generative
    assert again is not None
    assert again.adapter_bytes is None
