"""A stand-in that a test may tell to fail, kill, and start again."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from server.store.base import Store
from server.store.crypto import generate_master_key
from server.store.opening import open_store

STANDIN = Path(__file__).resolve().parents[1] / "standin.py"


class Server:
    """A stand-in of its own, that can be told to fail, and be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base = f"mongodb://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(STANDIN), "--data-dir", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready ")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def faults(self, **every: int) -> int:
        """Which fault happens every n-th time; says how many commands were served."""
        with MongoClient(self.base, directConnection=True) as client:
            named = {name.replace("_", "-"): n for name, n in every.items()}
            return int(client.admin.command("standin", named)["commands"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("standin"))
    yield running
    running.kill()


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    """A database of the test's own."""
    return f"{server.base}/{tmp_path.name[:40]}?replicaSet=standin"


@pytest.fixture
async def store(server: Server, url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store; no faults yet."""
    generate_master_key(tmp_path / "master.key")
    opened = open_store(url, tmp_path / "master.key")
    yield opened
    server.faults()
    await opened.close()
