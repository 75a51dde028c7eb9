"""The /sandbox addresses: journal, faults, clock, beneficiaries, reset, outbox. All JSON; none is in the journal."""

import json
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox import decide, faults, fhirjson, journal
from sandbox.world import World

RECORD = {"mbi", "family", "given", "birthDate", "gender", "diagnoses", "note", "control_group", "not_medicare",
          "services", "clinical_exclusion", "mismatch", "unalign_review", "alignments"}  # fmt: skip


class BadRequest(ValueError):
    """What was sent cannot be used; the text says why."""


def routes(world: World) -> list[Route]:
    """The routes of one sandbox."""
    admin = Admin(world)
    return [
        Route("/sandbox/journal", admin.journal, methods=["GET"]),
        Route("/sandbox/faults", admin.faults, methods=["GET", "POST"]),
        Route("/sandbox/clock", admin.clock, methods=["GET", "POST"]),
        Route("/sandbox/beneficiaries", admin.beneficiaries, methods=["GET", "POST"]),
        Route("/sandbox/alignments", admin.alignments, methods=["GET"]),
        Route("/sandbox/outbox", admin.outbox, methods=["GET"]),
        Route("/sandbox/reset", admin.reset, methods=["POST"]),
    ]


async def bad_request(request: Request, error: Exception) -> Response:
    """400 with the reason."""
    return JSONResponse({"error": str(error)}, status_code=400)


class Admin:
    """Handlers over one world. Each write is on disk before it is answered."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def journal(self, request: Request) -> Response:
        """Every request received, in order. `?after=SEQ` and `?call=CALL` narrow it."""
        after = request.query_params.get("after", "0")
        if not after.isdigit():
            raise BadRequest("after must be a number")
        return JSONResponse(journal.read(self._world, after=int(after), call=request.query_params.get("call")))

    async def faults(self, request: Request) -> Response:
        """GET: what is still planned. POST: adds to the plan; [] empties it."""
        if request.method == "POST":
            rows = await _json(request)
            with self._world.store.transaction():
                faults.plan(self._world, rows)
        return JSONResponse(faults.read(self._world))

    async def clock(self, request: Request) -> Response:
        """GET: the time. POST {"now"}: sets it; what falls due by it happens before the answer."""
        if request.method == "POST":
            now = _moment(await _json(request))
            with self._world.store.transaction():
                self._world.clock.set(now)
                self._world.reseed_if_unused()
                decide.advance(self._world)
        return JSONResponse({"now": self._world.clock.now().isoformat()})

    async def beneficiaries(self, request: Request) -> Response:
        """GET: the synthetic people. POST: adds or replaces one, or a list."""
        if request.method == "POST":
            rows = await _json(request)
            records = [_record(row) for row in (rows if isinstance(rows, list) else [rows])]
            with self._world.store.transaction():
                stored = [self._world.put_beneficiary(record) for record in records]
            return JSONResponse(stored, status_code=201)
        rows = self._world.store.all("SELECT record FROM beneficiary ORDER BY rowid")
        return JSONResponse([json.loads(row["record"]) for row in rows])

    async def alignments(self, request: Request) -> Response:
        """The alignments and the reports taken for each: CMS's own view."""
        store = self._world.store
        rows = [dict(row) for row in store.all("SELECT * FROM alignment ORDER BY rowid")]
        for row in rows:
            sql = "SELECT submission_id, report_type, received_on FROM report WHERE alignment_id = ? ORDER BY rowid"
            row |= {"diagnoses": json.loads(row["diagnoses"]), "seeded": bool(row["seeded"])}
            row["reports"] = [dict(report) for report in store.all(sql, row["id"])]
        return JSONResponse(rows)

    async def outbox(self, request: Request) -> Response:
        """The notices made so far; `sent_at` null while the SMTP server has not taken one."""
        return JSONResponse([dict(row) for row in self._world.store.all("SELECT * FROM mail ORDER BY rowid")])

    async def reset(self, request: Request) -> Response:
        """Back to the start: people, clock, no journal, no tokens, no faults."""
        with self._world.store.transaction():
            self._world.reset()
        return JSONResponse({"now": self._world.clock.now().isoformat()})


async def _json(request: Request) -> Any:
    try:
        return fhirjson.parse(await request.body())
    except fhirjson.BadJson as bad:
        raise BadRequest(f"the body is not JSON: {bad}") from None


def _moment(body: Any) -> datetime:
    try:
        now = datetime.fromisoformat(body["now"])
    except (KeyError, TypeError, ValueError):
        raise BadRequest('send {"now": "2026-07-06T14:00:00Z"}') from None
    if now.tzinfo is None:
        raise BadRequest("now must name its offset, such as 2026-07-06T14:00:00Z")
    return now.astimezone(UTC)


def _record(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or set(row) - RECORD:
        raise BadRequest(f"a beneficiary is an object with keys of: {', '.join(sorted(RECORD))}")
    for name in ("mbi", "family", "given", "birthDate"):
        if not fhirjson.filled(row.get(name)):
            raise BadRequest(f"{name} is missing: it must be a string")
    if not fhirjson.MBI_PATTERN.fullmatch(row["mbi"]):
        raise BadRequest("mbi is not of the format of Medicare Beneficiary Identifiers")
    for place in fhirjson.rows(row.get("alignments")):
        if not {"entity_id", "track", "days_ago"} <= set(place):
            raise BadRequest("each of alignments has entity_id, track and days_ago")
    return {"gender": "unknown", "diagnoses": [], **row}
