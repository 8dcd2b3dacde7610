"""What can go wrong in storage. Each error has a stable code and a text that says what would be right."""


class StorageError(Exception):
    """Something about the stored data, or about reaching it."""

    code = "storage_error"


class StorageUnavailable(StorageError):
    """Postgres could not be reached for longer than the caller was ready to wait."""

    code = "database_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the database cannot be reached: {reason}")


class NotFound(StorageError):
    """Nothing is stored under that name."""

    code = "not_found"

    def __init__(self, what: str, key: str, known: list[str] | None = None) -> None:
        hint = f"; there are: {', '.join(known)}" if known else ""
        super().__init__(f"no {what} {key!r}{hint}")


class NotAllowed(StorageError):
    """The thing is in a state that does not allow this."""

    code = "not_allowed"


class ArtefactDamaged(StorageError):
    """A stored file is missing, or its bytes are not those that were stored."""

    code = "artefact_damaged"
