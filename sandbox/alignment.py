"""Who can be aligned, who is, and until when.

Source: ACCESS API IG 0.9.12, eligibility, alignment and unalignment pages; numbers in data/program.toml.
"""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sandbox import notices, tables
from sandbox.store import Row
from sandbox.world import World

ALIGNED = "aligned"
REVIEW = "review"  # an unalignment waits for its manual review
UNALIGNED = "unaligned"
COMPLETED = "completed"  # the care period ended
RENEWABLE_REPORT = "end-of-period"


@dataclass(frozen=True, slots=True)
class Case:
    """One submission to decide. `day`: the calendar day it was received."""

    submission_id: str
    entity_id: str
    day: date
    facts: dict[str, Any]

    @property
    def track(self) -> str:
        """The track asked for."""
        return str(self.facts["track"])


def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = tables.program()["alignment"]
    return rules


def eligibility(world: World, case: Case) -> str:
    """The result code of $check-eligibility."""
    person = known(world, case)
    barred = _barred(world, case, person)
    if barred or person is None:
        return f"not-eligible-{barred}"
    if not _qualifies(world, case.track, [*person["diagnoses"], *case.facts["diagnoses"]]):
        return "not-eligible-diagnoses" if case.facts["diagnoses"] else "eligible-pending-diagnosis"
    if in_control(world, case, person):
        return "not-eligible-control-group"
    standing = _standing(world, case)
    return {"free": "eligible", "locked": "not-eligible-already-aligned"}.get(standing, "eligible-switch-participants")


def align(world: World, case: Case) -> str:
    """The result code of $align; makes the alignment if it is one of the good ones."""
    person = known(world, case)
    barred = _barred(world, case, person)
    if barred or person is None:
        return f"not-aligned-{barred}"
    if not _qualifies(world, case.track, case.facts["diagnoses"]):
        return "not-aligned-diagnoses"
    if in_control(world, case, person):
        return "not-aligned-control-group"
    standing = _standing(world, case)
    if standing == "locked":
        return "not-aligned-already-aligned"
    if standing == "switch" and not case.facts["attested"]:
        return "not-aligned-no-switch-attestation"
    for row in _rivals(world, case):
        renewed = row["entity_id"] == case.entity_id
        end(world, row, case.day, state=COMPLETED if renewed else UNALIGNED)
    _start(world, case)
    return "aligned" if standing == "free" else "aligned-switch-approved"


def unalign(world: World, case: Case) -> str:
    """The result code of $unalign; ends the alignment or puts it under review."""
    person = known(world, case)
    row = held(world, case) if person else None
    if row is None or person is None:
        return "patient-not-aligned"
    if case.facts["reason"] in _rules()["lock_in_reasons"] and locked(row, case.day):
        return "cannot-unalign-during-lock-in"
    if person.get("unalign_review"):
        review_on = case.day + timedelta(days=_rules()["review_days"])
        world.store.run(
            "UPDATE alignment SET state = ?, review_on = coalesce(review_on, ?) WHERE id = ?",
            REVIEW, review_on.isoformat(), row["id"],
        )  # fmt: skip
        return "unalignment-pending"
    end(world, row, case.day)
    return "unaligned"


def known(world: World, case: Case) -> dict[str, Any] | None:
    """The record of the person meant, or None if the identity data fit nobody's."""
    facts = case.facts
    person = world.beneficiary(facts["mbi"]) if facts["mbi"] else None
    if person is None or person.get("mismatch") or person["birthDate"] != facts["birthDate"]:
        return None
    same_family = person["family"].casefold() in [name.casefold() for name in facts["family"]]
    same_given = person["given"].casefold() in [name.casefold() for name in facts["given"]]
    return person if same_family and same_given else None


def held(world: World, case: Case) -> Row | None:
    """The current alignment with this participant on this track, or None."""
    return world.store.one(
        "SELECT * FROM alignment WHERE mbi = ? AND track = ? AND entity_id = ? AND ended_on IS NULL",
        case.facts["mbi"], case.track, case.entity_id,
    )  # fmt: skip


def locked(row: Row, day: date) -> bool:
    """Whether the alignment is in its lock-in: 90 days from the alignment, that day included."""
    return day < date.fromisoformat(row["aligned_on"]) + timedelta(days=_rules()["lock_in_days"])


def _barred(world: World, case: Case, person: dict[str, Any] | None) -> str | None:
    """What rules the person out whatever the track's state: the tail of the result code."""
    if case.facts["mbi"] is None:
        return "not-medicare"
    if person is None:
        return "mismatch"
    if person.get("not_medicare"):
        return "not-medicare"
    if person.get("services"):
        return "services"
    track = "CKM" if case.track == "eCKM" else case.track
    excluding = tables.ig("ValueSet", f"ACCESS{track}ClinicalExclusionDiagnosisVS")
    if person.get("clinical_exclusion") or any(world.codes.contains(excluding, c) for c in case.facts["diagnoses"]):
        return "clinical-exclusion"
    return None


def _qualifies(world: World, track: str, diagnoses: list[str]) -> bool:
    """Whether a diagnosis is in the track's list; any is, while the list is unknown."""
    listed = tables.ig("ValueSet", f"ACCESS{track}DiagnosisVS")
    return any(world.codes.contains(listed, code) is not False for code in diagnoses)


def in_control(world: World, case: Case, person: dict[str, Any]) -> bool:
    """Whether the draw keeps the person out: 12 months from the first query on the track."""
    if not person["control_group"]:
        return False
    mbi = case.facts["mbi"]
    world.store.insert(
        "control", submission_id=case.submission_id, mbi=mbi, track=case.track, entity_id=case.entity_id,
        since=case.day.isoformat(),
    )  # fmt: skip
    row = world.store.one("SELECT since FROM control WHERE mbi = ? AND track = ?", mbi, case.track)
    since = date.fromisoformat(row["since"]) if row else case.day
    return case.day < since + timedelta(days=tables.program()["control"]["days"])


def _rivals(world: World, case: Case) -> list[Row]:
    """Current alignments on this track, or on one that may not stand beside it."""
    tracks = {case.track, *(t for pair in _rules()["exclusive"] if case.track in pair for t in pair)}
    rows = world.store.all("SELECT * FROM alignment WHERE mbi = ? AND ended_on IS NULL", case.facts["mbi"])
    return [row for row in rows if row["track"] in tracks]


def _standing(world: World, case: Case) -> str:
    """free, switch (elsewhere and movable) or locked (here, or elsewhere in the lock-in)."""
    standings = {_against(world, case, row) for row in _rivals(world, case)}
    return next((one for one in ("locked", "switch") if one in standings), "free")


def _against(world: World, case: Case, row: Row) -> str:
    if row["entity_id"] == case.entity_id:
        return "free" if _renewable(world, case, row) else "locked"
    if row["track"] == case.track and locked(row, case.day):
        return "locked"
    return "switch"  # a move between eCKM and CKM to another participant is not bound by the lock-in


def _renewable(world: World, case: Case, row: Row) -> bool:
    """A follow-on: the period is over and its last report was accepted. How CMS renews is not published."""
    over = case.day >= date.fromisoformat(row["aligned_on"]) + timedelta(days=_rules()["period_days"])
    if not over or row["track"] not in _rules()["follow_on_tracks"]:
        return False
    sql = "SELECT 1 FROM report WHERE alignment_id = ? AND report_type = ?"
    return world.store.one(sql, row["id"], RENEWABLE_REPORT) is not None


def _start(world: World, case: Case) -> None:
    """The alignment is named by its submission: CMS's e-mails use that id."""
    world.store.insert(
        "alignment", id=case.submission_id, mbi=case.facts["mbi"], track=case.track, entity_id=case.entity_id,
        aligned_on=case.day.isoformat(), state=ALIGNED, diagnoses=json.dumps(case.facts["diagnoses"]),
    )  # fmt: skip


def end(world: World, row: Row, day: date, *, state: str = UNALIGNED) -> None:
    """Ends an alignment; an unalignment is told to the participant who held it."""
    world.store.run("UPDATE alignment SET state = ?, ended_on = ? WHERE id = ?", state, day.isoformat(), row["id"])
    if state == UNALIGNED:
        notices.unalignment(world, row, day)


def lapse(world: World, today: date, *, of: Case | None = None) -> None:
    """Lets time take its effect up to `today`: no baseline, review over, period over.

    `of`: for the patient of that submission alone. One whose report is still to be decided is left alone.
    """
    too_late = today - timedelta(days=_rules()["baseline_days"] + 1)
    rows = world.store.all(
        "SELECT * FROM alignment WHERE ended_on IS NULL AND seeded = 0 AND (review_on <= ? OR aligned_on <= ?) "
        "AND (? IS NULL OR mbi = ?)",
        today.isoformat(), too_late.isoformat(), of and of.facts["mbi"], of and of.facts["mbi"],
    )  # fmt: skip
    for row in rows:
        _lapse_one(world, row, today, of.submission_id if of else "")


def _lapse_one(world: World, row: Row, today: date, deciding: str) -> None:
    aligned_on = date.fromisoformat(row["aligned_on"])
    over = aligned_on + timedelta(days=_rules()["last_day"] + 1)
    reviewed = date.fromisoformat(row["review_on"]) if row["review_on"] else None
    if reviewed and today >= reviewed:
        end(world, row, reviewed)
    elif not _has_baseline(world, row):
        if not _reporting(world, row, deciding):
            end(world, row, aligned_on + timedelta(days=_rules()["baseline_days"] + 1))
    elif today >= over:
        end(world, row, over, state=COMPLETED)


def _has_baseline(world: World, row: Row) -> bool:
    sql = "SELECT 1 FROM report WHERE alignment_id = ? AND report_type = 'baseline'"
    return world.store.one(sql, row["id"]) is not None


def _reporting(world: World, row: Row, deciding: str) -> bool:
    waiting = world.store.all(
        "SELECT facts FROM submission WHERE answer IS NULL AND call = 'report-data' AND entity_id = ? AND id <> ?",
        row["entity_id"], deciding,
    )  # fmt: skip
    return any(json.loads(one["facts"])["mbi"] == row["mbi"] for one in waiting)
