"""What `mongodb://…` in `[store] url` says, and how the driver is told.

`mongodb://USER@HOST[,HOST]/DATABASE?replicaSet=NAME&passwordFile=/run/secrets/…`. A password in the URL itself is
refused: secrets are files. Every other option is the driver's own (tls, tlsCAFile, authSource, maxPoolSize, ...), but
what durability hangs on is ours and can not be set.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_uri

from server.domain.errors import BadConfiguration

DATABASE: Final = "access_facade"
_OURS: Final = frozenset({"w", "journal", "j", "wtimeoutms", "readconcernlevel", "readpreference", "retrywrites"})
# Majority and journal: what is acknowledged survives the loss of a machine. Reads see only what can not be rolled back.
_ALWAYS: Final[dict[str, Any]] = {
    "w": "majority",
    "journal": True,
    "readConcernLevel": "majority",
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
    "appname": "access-facade",
}
_UNLESS_GIVEN: Final[dict[str, Any]] = {
    "serverSelectionTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "socketTimeoutMS": 20000,
    "maxPoolSize": 50,
}


@dataclass(frozen=True, slots=True)
class Address:
    """A database, and what to hand to the driver's client."""

    uri: str
    database: str
    options: dict[str, Any]


def read_address(url: str) -> Address:
    """Raises BadConfiguration that names what is wrong; never the password."""
    parts = urlsplit(url)
    if parts.password is not None:
        raise BadConfiguration("[store] url holds a password: put it into a file and name that as passwordFile=/PATH")
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = {name.lower() for name, _ in query}
    if given & _OURS:
        raise BadConfiguration(f"[store] url sets {', '.join(sorted(given & _OURS))}: durability is not configurable")
    files = [value for name, value in query if name == "passwordFile"]
    rest = urlencode([pair for pair in query if pair[0] != "passwordFile"])
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:{quote_plus(_password(files[0]))}@" if parts.username and files else ""
    uri = f"{parts.scheme}://{user}{host}{parts.path or '/'}" + (f"?{rest}" if rest else "")
    options = {name: value for name, value in _UNLESS_GIVEN.items() if name.lower() not in given}
    return Address(uri, _database(uri), {**_ALWAYS, **options})


def _password(file: str) -> str:
    path = Path(file)
    if not path.is_absolute():
        raise BadConfiguration(f"[store] url: passwordFile={file} must be an absolute path")
    try:
        return path.read_text("utf-8").strip()
    except OSError as bad:
        raise BadConfiguration(f"{path}: the password file can not be read: {bad.strerror}") from None


def _database(uri: str) -> str:
    try:
        database = parse_uri(uri).get("database")
    except (InvalidURI, ConfigurationError, ValueError) as bad:
        raise BadConfiguration(f"[store] url is not a MongoDB address ({type(bad).__name__})") from None
    return str(database or DATABASE)
