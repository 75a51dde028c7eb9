"""A PCP's rest-hook receiver: takes FHIR R4 Subscription notifications (Backport shape) and keeps them.

`python -m sandbox.pcp --port 8091 --file pcp.jsonl [--fail-first N]`. Each notification is on disk before the 200.
"""

import argparse
import hashlib
import json
import os
import socket
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fhirjson import BadJson, obj, parse, rows


class Received:
    """The notifications in one JSON-lines file, oldest first. What was cut off by a crash mid-line is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def add(self, row: dict[str, Any]) -> None:
        """Keeps one; on disk when it returns."""
        with self._path.open("ab") as file:
            file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def summary(body: Any) -> dict[str, Any]:
    """What a notification says about itself: its type, Bundle id, subscription, and the event numbers it carries."""
    status = next((obj(entry.get("resource")) for entry in rows(obj(body).get("entry"))), {})
    if status.get("resourceType") == "Parameters":  # R4 Backport
        named = {p.get("name"): p for p in rows(status.get("parameter"))}
        events = [p for p in rows(status.get("parameter")) if p.get("name") == "notification-event"]
        numbers = [
            part.get("valueString") for p in events for part in rows(p.get("part")) if part["name"] == "event-number"
        ]
        kind = obj(named.get("type")).get("valueCode")
        subscription = obj(obj(named.get("subscription")).get("valueReference")).get("reference")
    else:  # SubscriptionStatus, as R4B and R5 have it
        numbers = [event.get("eventNumber") for event in rows(status.get("notificationEvent"))]
        kind, subscription = status.get("type"), obj(status.get("subscription")).get("reference")
    return {"type": kind or "other", "id": obj(body).get("id"), "subscription": subscription, "events": numbers}


def create_app(path: Path, *, fail_first: int = 0) -> Starlette:
    """The receiver. The first `fail_first` posts are answered 503 and not kept."""
    received = Received(path)
    to_fail = [fail_first]

    async def take(request: Request) -> Response:
        body = await request.body()
        if to_fail[0] > 0:
            to_fail[0] -= 1
            return JSONResponse({"error": "planned failure"}, status_code=503, headers={"Retry-After": "1"})
        try:
            resource = parse(body) if body else None
        except BadJson as bad:
            return JSONResponse({"error": str(bad)}, status_code=400)
        received.add(_row(request, body, resource))
        return Response(status_code=200)

    async def show(request: Request) -> Response:
        hidden = set() if request.query_params.get("full") else {"body"}
        kept = [{name: value for name, value in row.items() if name not in hidden} for row in received.rows]
        counts = Counter(row["type"] for row in received.rows)
        return JSONResponse({"count": len(kept), "by_type": counts, "notifications": kept})

    return Starlette(
        routes=[Route("/received", show, methods=["GET"]), Route("/{path:path}", take, methods=["POST", "PUT"])]
    )


def _row(request: Request, body: bytes, resource: Any) -> dict[str, Any]:
    authorization = request.headers.get("authorization", "")
    return {
        "at": datetime.now(UTC).isoformat(),
        "path": request.url.path,
        "content_type": request.headers.get("content-type"),
        "authorization_sha256": hashlib.sha256(authorization.encode()).hexdigest() if authorization else None,
        "sha256": hashlib.sha256(body).hexdigest(),
        **summary(resource),
        "body": resource,
    }


def main() -> int:
    """Runs it; prints one JSON line with its URL when it listens."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.pcp", description="A PCP's rest-hook receiver.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8091, help="0 takes a free one")
    parser.add_argument("--file", type=Path, default=Path("pcp.jsonl"), help="where notifications are kept")
    parser.add_argument("--fail-first", type=int, default=0, help="answer 503 to the first N")
    given = parser.parse_args()
    app = create_app(given.file, fail_first=given.fail_first)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    listening = socket.create_server((given.host, given.port), backlog=256)
    sys.stdout.write(json.dumps({"pcp": f"http://{given.host}:{listening.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
