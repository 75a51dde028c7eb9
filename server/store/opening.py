"""Which engine a URL names."""

from pathlib import Path

from server.domain.errors import BadConfiguration
from server.store.base import Store
from server.store.crypto import read_master_key
from server.store.sqlite.engine import SqliteStore

_SQLITE = "sqlite:///"


def open_store(url: str, key_file: Path) -> Store:
    """Opens the store, making it if it is not there. `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Raises BadConfiguration (URL, key file, file of a newer release), StoreDamaged (another master key, damaged file),
    StoreUnavailable.
    """
    if url.startswith("mongodb"):
        raise BadConfiguration("[store] url: mongodb:// comes with the second engine; use sqlite:///FILE for now")
    path = url.removeprefix(_SQLITE)
    if path == url or path in {"", ":memory:"}:
        raise BadConfiguration("[store] url must name a file, as in sqlite:///access.db")
    return SqliteStore(Path(path), read_master_key(key_file))
