"""What can go wrong with experts and their models. Each error has a stable code."""


class ExpertsError(Exception):
    """Something about a catalogue, a model or an index."""

    code = "experts_error"


class BadCatalogue(ExpertsError):
    """A catalogue folder cannot be used as it is; the text names file and line."""

    code = "bad_catalogue"


class BadDocument(ExpertsError):
    """A document cannot be read or holds no text."""

    code = "bad_document"


class UnknownKind(ExpertsError):
    """A router, engine, encoder or combiner was named that does not exist."""

    code = "unknown_kind"

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {what} {name!r}; there are: {', '.join(sorted(known))}")


class ModelUnusable(ExpertsError):
    """A model, router or index cannot be loaded, or belongs to another encoder."""

    code = "model_unusable"


class EngineUnavailable(ExpertsError):
    """The server an engine asks cannot be reached, refuses the key, or does not serve the model; later it may."""

    code = "engine_unavailable"


class CannotTrain(ExpertsError):
    """The data is not enough to train on."""

    code = "cannot_train"


class TrainingFailed(ExpertsError):
    """A training that had begun cannot go on: no memory, no space on the disk, numbers that are no numbers."""

    code = "training_failed"


class Stopped(ExpertsError):
    """A training was asked to stop, and did, with a checkpoint from which it can go on."""

    code = "stopped"
