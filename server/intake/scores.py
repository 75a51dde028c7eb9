"""A QuestionnaireResponse that comes alone: its PCO score is stored in the same transaction, its total is checked.

A score that the sender stored itself is enough. What the answers lack is told to a person, because a single create has
no place for it in its answer; the next version of the response settles it.
"""

from datetime import datetime

from mappers import fhir
from mappers.conversion import Resource, Source
from mappers.instruments import score_observation
from profiles import fhir_json
from profiles.issue import Issue, Severity
from server.context import Context
from server.domain.received import Received
from server.domain.resource import StoredResource
from server.intake.resources import Origin, instant, put_all
from server.store.base import Changeset, Where
from server.work_items import closed, work_item

_GONE = "entered-in-error"


async def score_rows(
    response: Resource, received: Received, *, patient_id: str, at: datetime, context: Context
) -> Changeset:
    """The rows of the score and its Provenance; a score whose response no longer counts is withdrawn."""
    made = fhir.scored(response, Source(received.sha256, instant(received.received_at)))
    resources = list(made.resources) or await _withdrawn(response, received.participant_id, context)
    changes = await _told(response, made.issues, received.participant_id, patient_id=patient_id, context=context)
    if made.resources and await _is_here(made.resources[0], received.participant_id, patient_id, context):
        return changes
    origin = Origin(received.participant_id, patient_id, received.id, at)
    return changes + await put_all(resources, origin, context)


async def _withdrawn(response: Resource, participant_id: str, context: Context) -> list[Resource]:
    """The stored score of a response that was withdrawn or is in work again."""
    former, _ = score_observation(response | {"status": "completed"})
    if former is None:
        return []
    row = await context.store.get(
        StoredResource, participant_id=participant_id, resource_type="Observation", id=former["id"]
    )
    return [] if row is None or row.deleted else [fhir_json.parse(row.body) | {"status": _GONE}]


async def _is_here(score: Resource, participant_id: str, patient_id: str, context: Context) -> bool:
    """Whether the sender stored the same score of the same time itself."""
    rows = await context.store.find(
        StoredResource,
        Where("participant_id", "==", participant_id),
        Where("patient_id", "==", patient_id),
        Where("resource_type", "==", "Observation"),
    )
    code, when = score["code"]["coding"][0], score["effectiveDateTime"].encode()
    near = (row for row in rows if row.id != score["id"] and not row.deleted and when in row.body)
    stored = (fhir_json.parse(row.body) for row in near)
    return any(
        one.get("effectiveDateTime") == score["effectiveDateTime"]
        and one.get("status") != _GONE
        and any(
            (each.get("system"), each.get("code")) == (code["system"], code["code"])
            for each in one["code"].get("coding", ())
        )
        for one in stored
    )


async def _told(
    response: Resource, issues: tuple[Issue, ...], participant_id: str, *, patient_id: str, context: Context
) -> Changeset:
    """A work item for what is wrong with the answers; an earlier one is closed when nothing is."""
    subject = f"QuestionnaireResponse/{response['id']}"
    wrong = [issue for issue in issues if issue.severity is not Severity.INFORMATION]
    if not wrong:
        items = await closed(
            context, participant_id=participant_id, kind="answers", subject=subject, at=context.clock.now()
        )
        return Changeset(replace=items)
    text = f"{subject} was stored, but look at its answers. " + " ".join(issue.text for issue in wrong)
    item = await work_item(
        context, participant_id=participant_id, kind="answers", subject=subject, text=text[:1000], patient_id=patient_id
    )
    return Changeset(insert=item)
