"""The driver's errors in the words of the facade. Messages name collections and columns, never values."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

from bson.errors import InvalidDocument
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)

from server.domain.errors import BadConfiguration, FacadeError, StoreUnavailable, UniqueViolation
from server.store.schema import RECORDS

DUPLICATE_KEY: Final = 11000
TRANSIENT: Final = "TransientTransactionError"
UNKNOWN_COMMIT: Final = "UnknownTransactionCommitResult"
_NOT_LET_IN: Final = frozenset({13, 18, 8000})  # Unauthorized, AuthenticationFailed, AtlasError
_DEFECTS: Final = frozenset({2, 9, 14, 72, 121})  # BadValue, FailedToParse, TypeMismatch, InvalidOptions, Validation
_KEYS: Final = {kind.TABLE.name: kind.TABLE.key for kind in RECORDS}


def translated(error: PyMongoError, table: str = "") -> FacadeError | ValueError | PyMongoError:
    """The facade's exception for the driver's; a fault of our own program stays what it is."""
    if duplicate := _duplicate(error):
        return UniqueViolation(table, _index(table, duplicate))
    if isinstance(error, DocumentTooLarge | InvalidDocument):
        return ValueError(f"a row of {table or 'the store'} can not be stored: it is larger than 16 MB or malformed")
    if isinstance(error, ConfigurationError) and not isinstance(error, ConnectionFailure):
        return BadConfiguration(f"[store] url: the driver refuses it ({type(error).__name__})")
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable("the database can not be reached, or has no primary now")
    if isinstance(error, OperationFailure):
        return _refused(error)
    return StoreUnavailable("the database did not answer in time") if error.timeout else error


def _refused(error: OperationFailure) -> FacadeError | PyMongoError:
    if error.code in _NOT_LET_IN:
        return StoreUnavailable("the database refuses the facade's credentials or rights")
    if error.code in _DEFECTS:
        return error
    return StoreUnavailable(f"the database refused the operation (code {error.code})")


def is_duplicate(error: PyMongoError) -> bool:
    """Whether a unique index barred a row."""
    return _duplicate(error) is not None


@contextlib.contextmanager
def translating(table: str = "") -> Iterator[None]:
    """Raises the facade's exceptions in place of the driver's."""
    try:
        yield
    except PyMongoError as error:
        raise translated(error, table) from error


def _duplicate(error: PyMongoError) -> dict[str, Any] | None:
    """The server's words about a duplicate key."""
    details = getattr(error, "details", None) or {}
    if isinstance(error, BulkWriteError):
        details = next(iter(details.get("writeErrors", ())), {})
    return dict(details) if details.get("code") == DUPLICATE_KEY else None


def _index(table: str, details: dict[str, Any]) -> tuple[str, ...]:
    """The index's columns: from its key, or from the name that we gave it."""
    pattern = tuple(details.get("keyPattern", ()))
    if not pattern:
        name = re.search(r"index: (?:\S+\$)?(\S+)", str(details.get("errmsg", "")))
        pattern = tuple(name.group(1).split("__")) if name else ("_id_",)
    return _KEYS.get(table, ("_id",)) if pattern[0] in ("_id", "_id_") else pattern
