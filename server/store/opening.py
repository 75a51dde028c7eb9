"""Which engine a URL names."""

from pathlib import Path
from typing import Final

from server.domain.errors import BadConfiguration
from server.store.base import Store
from server.store.crypto import MasterKey, read_master_key
from server.store.sqlite.engine import SqliteStore

_SQLITE: Final = "sqlite:///"
_MONGODB: Final = ("mongodb://", "mongodb+srv://")


def open_store(url: str, key_file: Path) -> Store:
    """Opens the store, making it if it is not there. `sqlite:///relative.db`, `sqlite:////absolute.db` or
    `mongodb://USER@HOST/DATABASE?replicaSet=NAME&passwordFile=/PATH`.

    Raises BadConfiguration (URL, key file, store of a newer release), StoreDamaged (another master key, damaged file),
    StoreUnavailable.
    """
    if url.startswith(_MONGODB):
        return _mongodb(url, read_master_key(key_file))
    path = url.removeprefix(_SQLITE)
    if path == url or path in {"", ":memory:"}:
        raise BadConfiguration("[store] url must be sqlite:///FILE or mongodb://HOST/DATABASE")
    return SqliteStore(Path(path), read_master_key(key_file))


def _mongodb(url: str, master: MasterKey) -> Store:
    """The driver is imported only where it is used: it is an extra."""
    try:
        from server.store.mongodb.address import read_address
        from server.store.mongodb.engine import MongoStore
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in ("pymongo", "bson"):
            raise
        raise BadConfiguration(
            "[store] url names MongoDB, but its driver is not installed: pip install 'access-facade[mongodb]'"
        ) from None
    return MongoStore(read_address(url), master)
