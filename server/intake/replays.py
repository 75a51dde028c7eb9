"""The same request again, and the same name for another one: what a client's repeat finds, and what it is refused.

A repeat in the same bytes is the same submission. An `Idempotency-Key` says so in the client's own words, and holds a
day: the key of one body can not be used for another. A report's Bundle.identifier that was used for another report is
made unique, because CMS tells reports apart by it.
Source: IETF draft-ietf-httpapi-idempotency-key-header-07; ACCESS API IG 0.9.12, duplicates; FHIR R4, bdl-9.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from starlette.requests import Request

from mappers.conversion import Resource
from profiles.issue import Issue, error
from server.context import Context
from server.domain.errors import Refused
from server.domain.memory import Remembered
from server.domain.submission import Submission
from server.intake.repair_steps import mapped, note
from server.store.base import Changeset, Where

REPLAY_HOURS = 24  # a finished write asked for again within this time is the same one
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Repeat:
    """How a request may be told to be a repeat. `digest` is of the bytes that came; `key` is the client's, or None."""

    participant_id: str
    scope: str  # whose key, and for which operation
    digest: str
    key: str | None

    @property
    def replay_key(self) -> str:
        """Names the bytes: the same for the same client, operation and body."""
        return f"{self.scope}|{self.digest}"

    @property
    def name(self) -> str:
        """Under which the client's key is remembered."""
        return "idempotency-key|" + hashlib.sha256(f"{self.scope}|{self.key}".encode()).hexdigest()


def key_of(request: Request) -> str | None:
    """The Idempotency-Key header. Raises Refused 400 for one that can not be kept."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    key = key.strip().strip('"')
    if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        text = f"The Idempotency-Key has 1 to {LONGEST_KEY} printable characters; send such a key, or none."
        raise Refused(400, [error("value", "http.Idempotency-Key", text)])
    return key


def is_over(submission: Submission, now: datetime) -> bool:
    """Whether a repeat of this submission is a new one by now."""
    finished = submission.finished_at
    return finished is not None and now - finished > timedelta(hours=REPLAY_HOURS)


async def by_key(repeat: Repeat, context: Context) -> Submission | None:
    """The submission of the client's key. Raises Refused 422 if the key was used for another body."""
    found = await _remembered(repeat, context)
    if found is None:
        return None
    digest, _, submission_id = found.value.partition("|")
    submission = await context.store.get(Submission, participant_id=repeat.participant_id, id=submission_id)
    if submission is None or is_over(submission, context.clock.now()):
        return None
    if digest != repeat.digest:
        text = "This Idempotency-Key was used for another request body: send a new request under a new key."
        raise Refused(422, [error("business-rule", "http.Idempotency-Key", text)])
    return submission


async def key_noted(repeat: Repeat, submission_id: str, context: Context) -> Changeset:
    """The row that makes the client's key find this submission."""
    if repeat.key is None:
        return Changeset()
    value = f"{repeat.digest}|{submission_id}"
    found = await _remembered(repeat, context)
    if found is not None:
        return Changeset(replace=(replace(found, value=value),)) if found.value != value else Changeset()
    return Changeset(insert=(Remembered(participant_id=repeat.participant_id, name=repeat.name, value=value),))


async def _remembered(repeat: Repeat, context: Context) -> Remembered | None:
    if repeat.key is None:
        return None
    return await context.store.get(Remembered, participant_id=repeat.participant_id, name=repeat.name)


async def by_bytes(repeat: Repeat, context: Context) -> Submission | None:
    """The submission of the same bytes; None after its time is over (it gives the bytes free)."""
    conditions = (
        Where("participant_id", "==", repeat.participant_id),
        Where("replay_key", "==", repeat.replay_key),
    )
    found = await context.store.find(Submission, *conditions, limit=1)
    if not found:
        return None
    if is_over(found[0], context.clock.now()):
        await context.store.commit(Changeset(replace=(replace(found[0], replay_key=None),)))
        return None
    return found[0]


async def unique_identifier(
    parameters: Resource, repeat: Repeat, context: Context
) -> tuple[Resource, list[Issue], Changeset]:
    """The report with a Bundle.identifier that no other report had, the note if it was changed, and what to remember.

    The new value is made of the old one and of the report's bytes: the same report gets the same one again.
    """
    notes: list[Issue] = []
    identifiers = [
        parameter["resource"]["identifier"]
        for parameter in parameters["parameter"]
        if parameter.get("name") == "dataBundle"
    ]
    if not identifiers:
        return parameters, notes, Changeset()
    identifier = identifiers[0]
    changes = await _taken_up(identifier, repeat, context)
    if changes is not None:
        return parameters, notes, changes
    unique = {**identifier, "value": f"{identifier['value']}.{repeat.digest[:16]}"}

    def parameter(one: Resource, number: int) -> Resource:
        if one.get("name") != "dataBundle":
            return one
        text = "The identifier was used for another report before: it was made unique for this one."
        notes.append(note(f"Parameters.parameter[{number}].resource.identifier.value", text))
        return {**one, "resource": {**one["resource"], "identifier": unique}}

    changed = mapped(parameters, "parameter", parameter)
    return changed, notes, await _taken_up(unique, repeat, context) or Changeset()


async def _taken_up(identifier: Resource, repeat: Repeat, context: Context) -> Changeset | None:
    """What makes the identifier this report's; None if it is another's."""
    named = f"{identifier.get('system')}|{identifier.get('value')}"
    name = "bundle-identifier|" + hashlib.sha256(named.encode()).hexdigest()
    found = await context.store.get(Remembered, participant_id=repeat.participant_id, name=name)
    if found is None:
        row = Remembered(participant_id=repeat.participant_id, name=name, value=repeat.digest)
        return Changeset(insert=(row,))
    return Changeset() if found.value == repeat.digest else None
