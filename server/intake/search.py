"""Search within one participant's resources. Source: FHIR R4, Search.

Bodies are encrypted, so a search first narrows by what is indexed (patient, identifier, id), then filters what it
decrypts. Unknown parameters are refused, never ignored: a filter that is not applied shows too much.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from capability.statement import search_parameters
from mappers.conversion import Resource
from profiles import fhir_json
from profiles.issue import error
from server.audit import record
from server.auth import Caller
from server.context import Context
from server.domain.errors import Refused
from server.domain.resource import StoredResource
from server.intake.body import media_type, read_body
from server.intake.identity import find
from server.intake.kept import caller_of, context_of, reply
from server.intake.resources import patient_reference
from server.intake.rest import by_identifier
from server.outcomes import FhirResponse
from server.store.base import Changeset, Where

DEFAULT_COUNT, MAX_COUNT = 50, 500
MAX_SCANNED = 5000
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
DATE_ELEMENTS = (
    "effectiveDateTime", "effectivePeriod", "authored", "date", "issued", "onsetDateTime", "recordedDate", "recorded",
    "period", "authoredOn", "startDate", "timestamp", "created",
)  # fmt: skip
FORM = frozenset({"application/x-www-form-urlencoded"})

Test = Callable[[Resource], bool]


async def search(request: Request) -> FhirResponse:
    """`GET /fhir/{type}?...` and `POST /fhir/{type}/_search`: a searchset Bundle."""
    kind, caller, context = request.path_params["type"], caller_of(request), context_of(request)
    offered = search_parameters(kind)
    if not offered:
        raise Refused(404, [error("not-supported", "", "This resource type is not searched here: see /fhir/metadata.")])
    caller.require(kind, "s")
    given = await _given(request)
    for name, _ in given:
        if name not in offered and name not in ("_count", "_format"):
            text = "This search parameter is not offered for the type: see /fhir/metadata. Nothing was searched."
            raise Refused(400, [error("not-supported", f"http.{name[:40]}", text)])
    rows = await _candidates(kind, given, caller, context)
    tests = [await _test(name, value, caller, context) for name, value in given if name not in ("_count", "_format")]
    found = [row for row, resource in _read(rows) if all(test(resource) for test in tests)]
    await _audited(request, kind, found)
    return reply(request, fhir_json.dump(_bundle(request, kind, given, found)))


async def _given(request: Request) -> list[tuple[str, str]]:
    given = parse_qsl(request.url.query, keep_blank_values=True)
    if request.method == "POST" and media_type(request):
        body = await read_body(request, allowed=FORM, limit=100_000)
        given += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return given


async def _candidates(
    kind: str, given: list[tuple[str, str]], caller: Caller, context: Context
) -> list[StoredResource]:
    """The rows that an index leaves over; the tests do the rest."""
    named = dict(given)
    base = [Where("participant_id", "==", caller.participant_id), Where("resource_type", "==", kind)]
    if "_id" in named:
        base.append(Where("id", "in", tuple(named["_id"].split(","))))
    elif _is_whole(named.get("identifier", "")):
        return await by_identifier(kind, named["identifier"], caller, context)
    elif kind != "Patient" and ("patient" in named or "subject" in named):
        patients = await _patients(named.get("patient") or named["subject"], caller, context)
        base.append(Where("patient_id", "in", tuple(patients)))
    rows = await context.store.find(StoredResource, *base, order_by="last_updated", descending=True, limit=MAX_SCANNED)
    if len(rows) == MAX_SCANNED:
        text = f"More than {MAX_SCANNED} resources would have to be looked at: name a patient, an identifier or an id."
        raise Refused(400, [error("too-costly", "http.query", text)])
    return [row for row in rows if not row.deleted]


def _is_whole(identifier: str) -> bool:
    """One `system|value`: that is what the index holds."""
    return "|" in identifier[:-1] and "," not in identifier


async def _patients(value: str, caller: Caller, context: Context) -> list[str]:
    """Patient ids for `123`, `Patient/123`, an absolute reference, or `system|value`."""
    ids: list[str] = []
    for item in value.split(","):
        if "|" in item:
            ids += (await find([item], caller.participant_id, context)).values()
        else:
            ids.append(item.rpartition("/")[2])
    return ids


async def _test(name: str, value: str, caller: Caller, context: Context) -> Test:
    if name == "_id":
        return lambda resource: resource["id"] in value.split(",")
    if name in ("patient", "subject"):
        patients = set(await _patients(value, caller, context))
        return lambda resource: (patient_reference(resource) or "").rpartition("/")[2] in patients
    if name in ("date", "_lastUpdated"):
        return _date_test(name, value)
    element = {"code": "code", "category": "category", "status": "status", "identifier": "identifier"}.get(name, name)
    wanted = [item.rpartition("|") for item in value.split(",")]
    return lambda resource: any(_matches(token, wanted) for token in _tokens(resource.get(element)))


def _matches(token: tuple[str, str], wanted: Iterable[tuple[str, str, str]]) -> bool:
    system, code = token
    return any((not bar or asked == system) and (not value or value == code) for asked, bar, value in wanted)


def _tokens(value: Any) -> Iterator[tuple[str, str]]:
    """System and code of every code, Coding, CodeableConcept and Identifier in an element."""
    if isinstance(value, str):
        yield "", value
    elif isinstance(value, list):
        for item in value:
            yield from _tokens(item)
    elif isinstance(value, dict):
        yield from _tokens(value.get("coding", []))
        if code := value.get("code") or value.get("value"):
            yield value.get("system", ""), str(code)


def _date_test(name: str, value: str) -> Test:
    prefix, wanted = (value[:2], value[2:]) if value[:2] in PREFIXES else ("eq", value)
    if not wanted[:4].isdigit():
        text = "The value must be a FHIR date or dateTime, with or without a prefix such as ge."
        raise Refused(400, [error("value", f"http.{name}", text)])

    def test(resource: Resource) -> bool:
        found = resource["meta"]["lastUpdated"] if name == "_lastUpdated" else _date(resource)
        return found is not None and _compared(prefix, found[: len(wanted)], wanted)

    return test


def _date(resource: Resource) -> str | None:
    """The date of a resource, as written; a Period counts from its start."""
    for element in DATE_ELEMENTS:
        found = resource.get(element)
        if isinstance(found, dict):
            found = found.get("start")
        if isinstance(found, str):
            return found
    return None


def _compared(prefix: str, found: str, wanted: str) -> bool:
    return {
        "eq": found == wanted,
        "ne": found != wanted,
        "gt": found > wanted,
        "sa": found > wanted,
        "lt": found < wanted,
        "eb": found < wanted,
        "ge": found >= wanted,
        "le": found <= wanted,
    }[prefix]


def _read(rows: list[StoredResource]) -> Iterator[tuple[StoredResource, Resource]]:
    for row in rows:
        yield row, fhir_json.parse(row.body)


def _bundle(request: Request, kind: str, given: list[tuple[str, str]], found: list[StoredResource]) -> Resource:
    base = f"{context_of(request).settings.base_url}/fhir"
    asked = dict(given).get("_count", "")
    count = min(int(asked), MAX_COUNT) if asked.isascii() and asked.isdigit() else DEFAULT_COUNT
    query = urlencode([pair for pair in given if pair[0] != "_format"])
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(found),
        "link": [{"relation": "self", "url": f"{base}/{kind}" + (f"?{query}" if query else "")}],
    }
    entries = [
        {"fullUrl": f"{base}/{kind}/{row.id}", "resource": fhir_json.parse(row.body), "search": {"mode": "match"}}
        for row in found[:count]
    ]
    return bundle | ({"entry": entries} if entries else {})


async def _audited(request: Request, kind: str, found: list[StoredResource]) -> None:
    """One entry for each patient whose data were found, as IHE BALP asks; one even if nothing was."""
    caller, context = caller_of(request), context_of(request)
    patients = sorted({row.patient_id or "" for row in found}) or [""]
    entries = tuple(
        record(
            participant_id=caller.participant_id,
            at=context.clock.now(),
            agent=caller.client_id,
            action="E",
            subtype="search",
            entity=kind,
            patient_id=patient or None,
        )
        for patient in patients
    )
    await context.store.commit(Changeset(audit=entries))
