"""An SMTP sink that delivers into a maildir: `python -m sandbox.mailbox --port 8025 --maildir inbox`.

A mail is on disk (tmp, fsync, rename to new, fsync of the folder) before the server answers 250.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_BYTES = 10 * 1024 * 1024


def deliver(maildir: Path, content: bytes) -> Path:
    """Puts one mail into the maildir, durably; returns its file in new/."""
    for name in ("tmp", "new", "cur"):
        (maildir / name).mkdir(parents=True, exist_ok=True)
    unique = f"{uuid.uuid4()}.sandbox"
    written = maildir / "tmp" / unique
    with written.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    delivered = written.rename(maildir / "new" / unique)
    folder = os.open(maildir / "new", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return delivered


class Maildir:
    """aiosmtpd's handler: every recipient's mail goes into one maildir."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """250 once the mail is on disk; 451 if it cannot be written."""
        content = envelope.content or b""
        try:
            await asyncio.to_thread(deliver, self._path, content if isinstance(content, bytes) else content.encode())
        except OSError:
            return "451 Requested action aborted: local error in processing"
        return "250 OK"


async def listen(host: str, port: int, maildir: Path) -> asyncio.Server:
    """A listening server; the caller closes it."""
    handler = Maildir(maildir)
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: SMTP(handler, data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, hostname="access-sandbox", loop=loop),
        host,
        port,
    )


async def _run(host: str, port: int, maildir: Path) -> None:
    server = await listen(host, port, maildir)
    sys.stdout.write(json.dumps({"smtp": f"{host}:{server.sockets[0].getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> int:
    """Runs it; prints one JSON line with its address when it listens."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.mailbox", description="An SMTP sink into a maildir.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8025, help="0 takes a free one")
    parser.add_argument("--maildir", type=Path, default=Path("maildir"))
    given = parser.parse_args()
    asyncio.run(_run(given.host, given.port, given.maildir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
