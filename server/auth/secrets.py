"""Client secrets: read once, kept as hashes, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from server.domain.errors import BadConfiguration
from server.settings import Client

SHORTEST = 16
_NOBODY = hashlib.sha256(b"no client has this secret").digest()


class ClientSecrets:
    """The secrets of all clients that have one."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        """Reads the secret files. Raises BadConfiguration that names the file."""
        self._hashes = {
            client.client_id: hashlib.sha256(_secret(client.client_secret_file)).digest()
            for client in clients.values()
            if client.client_secret_file is not None
        }

    def match(self, client_id: str, candidates: Iterable[str]) -> bool:
        """Whether one of the candidates is the client's secret; takes as long for an unknown client."""
        expected = self._hashes.get(client_id, _NOBODY)
        given = [hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).digest() for candidate in candidates]
        same = [hmac.compare_digest(expected, digest) for digest in given]
        return any(same) and client_id in self._hashes


def _secret(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as bad:
        raise BadConfiguration(f"{path}: client_secret_file can not be read ({type(bad).__name__})") from None
    if len(secret) < SHORTEST:
        raise BadConfiguration(f"{path}: the client secret is shorter than {SHORTEST} characters; make a longer one")
    return secret
