"""Which engine a URL names."""

import os
from pathlib import Path
from typing import Final

from server.domain.errors import BadConfiguration
from server.store.base import Store
from server.store.copy import CopyableStore
from server.store.crypto import MasterKey, read_master_key
from server.store.holds import SUFFIX, Holds
from server.store.sqlite.engine import SqliteStore

_SQLITE: Final = "sqlite:///"
_MONGODB: Final = ("mongodb://", "mongodb+srv://")


def open_store(url: str, key_file: Path) -> Store:
    """As `open_copyable`; a copy that was not finished is refused."""
    return _opened(url, key_file, unfinished=False)


def open_holds(url: str) -> Holds:
    """The jobs that living processes have in hand, of the store of that URL, by whatever name of its file."""
    path = url.removeprefix(_SQLITE)
    return Holds(None if path == url else Path(os.path.realpath(path) + SUFFIX))


def open_copyable(url: str, key_file: Path) -> CopyableStore:
    """Opens the store, making it if it is not there. `sqlite:///relative.db`, `sqlite:////absolute.db` or
    `mongodb://USER@HOST/DATABASE?replicaSet=NAME&passwordFile=/PATH`.

    Raises BadConfiguration (URL, key file, store of a newer release), StoreDamaged (another master key, damaged file),
    StoreUnavailable.
    """
    return _opened(url, key_file, unfinished=True)


def _opened(url: str, key_file: Path, *, unfinished: bool) -> CopyableStore:
    if url.startswith(_MONGODB):
        return _mongodb(url, read_master_key(key_file), unfinished=unfinished)
    path = url.removeprefix(_SQLITE)
    if path == url or path in {"", ":memory:"}:
        raise BadConfiguration(
            "[store] url must name a file, as in sqlite:///access.db, or a database, as in mongodb://HOST/NAME"
        )
    return SqliteStore(Path(path), read_master_key(key_file), unfinished=unfinished)


def _mongodb(url: str, master: MasterKey, *, unfinished: bool) -> CopyableStore:
    """The driver is imported only where it is used: it takes a tenth of a second."""
    from server.store.mongodb.address import read_address
    from server.store.mongodb.engine import MongoStore

    return MongoStore(read_address(url), master, unfinished=unfinished)
