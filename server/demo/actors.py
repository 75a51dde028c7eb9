"""Who talks to the facade in the demo: by its public doors only, and what got no answer is repeated byte for byte."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from profiles import fhir_json
from server.demo.world import World, patiently


@dataclass
class Actor:
    """A client of the facade: gets its token by client credentials, and a new one when that is over."""

    world: World
    client_id: str
    _token: str = ""

    def post(self, path: str, body: bytes, content_type: str = "application/json") -> httpx2.Response:
        """POSTs until there is an answer that is not a 503."""
        return self._send("POST", path, body, content_type)

    def get(self, path: str) -> httpx2.Response:
        """GETs an address of the facade, or a path."""
        return self._send("GET", path, None, "")

    def _send(self, method: str, path: str, body: bytes | None, content_type: str) -> httpx2.Response:
        url = path if path.startswith("http") else self.world.facade + path
        headers = {"Content-Type": content_type} if content_type else {}

        def once() -> httpx2.Response | None:
            headers["Authorization"] = f"Bearer {self._token or self._new_token()}"
            answer = self.world.http.request(method, url, content=body, headers=headers)
            if answer.status_code == 401:
                self._token = ""
                return None
            return None if answer.status_code == 503 else answer

        answer: httpx2.Response = patiently(once, f"{method} {path}")
        return answer

    def _new_token(self) -> str:
        pair = f"{self.client_id}:{self.world.secrets[self.client_id]}".encode()
        answer = self.world.http.post(
            f"{self.world.facade}/auth/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": "Basic " + base64.b64encode(pair).decode()},
        )
        if answer.status_code != 200:
            raise httpx2.ConnectError(f"token endpoint: {answer.status_code}")
        self._token = answer.json()["access_token"]
        return self._token


def send_mllp(port: int, message: bytes) -> str:
    """Sends one message over MLLP and gives MSA-1 of the answer."""

    def once() -> str | None:
        with _connected(port) as connection:
            connection.sendall(b"\x0b" + message + b"\x1c\x0d")
            answer = bytearray()
            while not answer.endswith(b"\x1c\x0d"):
                chunk = connection.recv(65536)
                if not chunk:
                    return None
                answer += chunk
        segments = bytes(answer).strip(b"\x0b\x1c\x0d").split(b"\r")
        return next((s.split(b"|")[1].decode() for s in segments if s.startswith(b"MSA")), None)

    found: str = patiently(once, "MLLP")
    return found


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(10)
        yield connection


def json_of(answer: httpx2.Response) -> dict[str, Any]:
    """The FHIR JSON of an answer."""
    return fhir_json.parse(answer.content)
