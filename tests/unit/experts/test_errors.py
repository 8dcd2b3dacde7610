"""Every error has its own stable code."""

import pytest

from experts import errors
from experts.errors import ExpertsError

CODES = {
    "ExpertsError": "experts_error",
    "BadCatalogue": "bad_catalogue",
    "BadDocument": "bad_document",
    "UnknownKind": "unknown_kind",
    "ModelUnusable": "model_unusable",
    "EngineUnavailable": "engine_unavailable",
    "CannotTrain": "cannot_train",
    "TrainingFailed": "training_failed",
    "Stopped": "stopped",
}


def test_the_codes_are_these_and_no_others() -> None:
    found = {
        name: kind.code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ExpertsError)
    }
    assert found == CODES


@pytest.mark.parametrize("name", CODES)
def test_every_error_says_in_a_sentence_what_it_means(name: str) -> None:
    assert vars(errors)[name].__doc__.strip()
