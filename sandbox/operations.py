"""CMS's four operations and the status of a submission."""

import hashlib
import json
import time
import uuid
from typing import Any

from sandbox import fhirjson, requests, tables, tokens
from sandbox.exchange import Answer, Exchange, Issue, outcome, refusal
from sandbox.fhirjson import codings, obj, rows
from sandbox.section_checks import section_code
from sandbox.world import World

PREFIX = "/fhir/access/Patient/$"
STATUS = "submission-status/"
MEDIA_TYPES = ("application/json", "application/fhir+json")
MAX_BODY = 10 * 1024 * 1024


def submit(call: str, world: World, exchange: Exchange) -> Answer:
    """POST of an operation: 202 with an absolute Content-Location and no body, or a refusal."""
    if exchange.method != "POST":
        raise refusal(405, "Use POST", headers={"Allow": "POST"})
    caller = tokens.bearer(world, exchange, "post")
    body = _body(exchange)
    entity_id = exchange.query.get("entityId")
    issues = requests.check(requests.Request(call, entity_id, world.codes, body))
    if not all(issue.late for issue in issues):
        return Answer(400, outcome(*issues))
    if caller.entity_id not in (None, entity_id):
        raise refusal(403, "The token was not issued to this participant")
    submission_id = f"sub-{uuid.uuid4()}"
    world.store.insert(
        "submission", id=submission_id, call=call, entity_id=entity_id, received_at=world.clock.now().isoformat(),
        ready_at=time.time() + world.settings.latency, facts=json.dumps(_facts(call, body) | _late(issues)),
    )  # fmt: skip
    location = f"{exchange.base}{PREFIX}{STATUS}{submission_id}"
    return Answer(202, None, {"Content-Location": location}, submission_id, accepted=True)


def status(world: World, exchange: Exchange) -> Answer:
    """GET of a status URL: 202 while working, then 200 with the result, or 400 for a late fault; again and again."""
    submission_id = exchange.path.removeprefix(PREFIX + STATUS)
    if exchange.method not in ("GET", "HEAD"):
        raise refusal(405, "Use GET", headers={"Allow": "GET"})
    caller = tokens.bearer(world, exchange, "status")
    row = world.store.one("SELECT * FROM submission WHERE id = ?", submission_id)
    if row is None or caller.entity_id not in (None, row["entity_id"]):
        issue = Issue("not-found", f"Submission ID '{submission_id[:64]}' not found")
        return Answer(404, outcome(issue), submission_id=submission_id)
    if row["answer"] is None:
        return Answer(202, submission_id=submission_id)
    answer = json.loads(row["answer"])
    late = answer["resourceType"] == "OperationOutcome"
    return Answer(400 if late else 200, answer, submission_id=submission_id)


def _late(issues: list[Issue]) -> dict[str, Any]:
    """What is to be said at the poll. Seen at CMS's test environment: a Bundle fault that its 202 had let through."""
    return {"late": outcome(*issues)} if issues else {}


def _body(exchange: Exchange) -> dict[str, Any]:
    media_type = exchange.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise refusal(415, "Content-Type must be application/json")
    if len(exchange.body) > MAX_BODY:
        raise refusal(413, "The body is larger than 10 MiB")
    try:
        body = fhirjson.parse(exchange.body)
    except fhirjson.BadJson as bad:
        raise refusal(400, f"Request body is not well-formed JSON: {bad}", code="structure") from None
    if not isinstance(body, dict):
        raise refusal(400, "Request body is not a well-formed Parameters resource", code="structure")
    return body


def _facts(call: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the decision needs of a request that passed the checks; the request itself is not kept."""
    named: dict[str, list[dict[str, Any]]] = {}
    for parameter in rows(body["parameter"]):
        named.setdefault(parameter["name"], []).append(parameter)
    facts = {
        "track": _code(named, "track"),
        "reason": _code(named, "reason"),
        "report_type": _code(named, "reportType"),
    }
    diagnoses = [_icd10(parameter["resource"]) for parameter in named.get("condition", [])]
    attested = named.get("switchConsentAttestation", [{}])[0].get("valueBoolean")
    patient = named["patient"][0]["resource"] if "patient" in named else _reported_patient(named["dataBundle"][0])
    report = _report(named["dataBundle"]) if call == "report-data" else {}
    return facts | {"diagnoses": diagnoses, "attested": attested is True} | _identity(patient) | report


def _code(named: dict[str, list[dict[str, Any]]], name: str) -> str | None:
    return codings(named[name][0]["valueCodeableConcept"])[0]["code"] if name in named else None


def _icd10(condition: dict[str, Any]) -> str:
    return str(codings(condition["code"], tables.ICD10CM)[0]["code"])


def _identity(patient: dict[str, Any]) -> dict[str, Any]:
    names = rows(patient.get("name"))
    given = [name for one in names for name in one.get("given", [])]
    families = [str(one.get("family", "")) for one in names]
    return {"mbi": fhirjson.mbi_of(patient), "family": families, "given": given, "birthDate": patient["birthDate"]}


def _reported_patient(parameter: dict[str, Any]) -> dict[str, Any]:
    resources = [obj(entry.get("resource")) for entry in rows(parameter["resource"]["entry"])]
    return next(resource for resource in resources if resource.get("resourceType") == "Patient")


def _report(bundles: list[dict[str, Any]]) -> dict[str, Any]:
    sections = set()
    for parameter in bundles:
        track_section = parameter["resource"]["entry"][0]["resource"]["section"][0]
        sections |= {section_code(s) for s in rows(track_section.get("section")) if rows(s.get("entry"))}
    data = json.dumps([parameter["resource"] for parameter in bundles], sort_keys=True)
    return {"sections": sorted(sections), "digest": hashlib.sha256(data.encode()).hexdigest()}
