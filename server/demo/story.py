"""The care year of one CKM patient, told in steps; `access-facade demo`.

Every step waits for its end as an outsider would see it, and says so when it does not come.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server.demo import messages, witness
from server.demo.actors import Actor, json_of, send_mllp
from server.demo.ledger import Ledger
from server.demo.messages import Visit
from server.demo.timeline import Timeline
from server.demo.world import World, made, start_cms, start_facade
from server.domain.care_period import Report, ReportState
from server.domain.coordination import CareUpdate, CmsNotification, Delivery, DeliveryState
from server.domain.errors import FacadeError
from server.domain.submission import Submission, SubmissionState
from server.store.base import Where

BEGIN = datetime(2026, 8, 3, 13, 0, tzinfo=UTC)
# Day of the year, and what the visit finds. The weight falls, the pressure reaches its goal with the second visit.
VISITS: tuple[tuple[int, Visit], ...] = (
    (3, Visit(((148, 88), (144, 86), (146, 87)), 214, 171, 44, 136, "8.1", 58, 64, "198.4", "34.1", "104.5")),
    (84, Visit(((128, 78), (126, 77), (124, 76)), 188, 150, 46, 112, "7.4", 59, 52, "192.0", "33.0", "102.0")),
    (166, Visit(((127, 76), (125, 75), (126, 77)), 176, 142, 47, 101, "7.1", 60, 44, "188.6", "32.4", "100.5")),
    (248, Visit(((124, 75), (122, 74), (125, 76)), 170, 138, 48, 94, "6.9", 60, 38, "186.2", "32.0", "99.5")),
    (330, Visit(((124, 75), (123, 75), (125, 74)), 168, 135, 48, 92, "6.9", 60, 36, "185.0", "31.8", "99.0")),
    (372, Visit(((123, 74), (122, 75), (121, 73)), 165, 131, 49, 90, "6.8", 61, 33, "184.0", "31.6", "98.5")),
)
STEP_SECONDS = 20.0  # real time that one step may take


class Year:
    """The story's state: the world, the timeline, who takes part."""

    def __init__(self, world: World, ledger: Ledger, timeline: Timeline, track: str) -> None:
        self.world, self.ledger, self.timeline, self.track = world, ledger, timeline, track
        self.ehr = Actor(world, "ehr-1")
        self.hie = Actor(world, "hie-1")
        self.pcp = Actor(world, "pcp-1")

    def play(self) -> None:
        """All of it, in order."""
        self.timeline.title("The PCP subscribes; the EHR asks and aligns")
        self._subscribe()
        self._operation("check-eligibility", "eligible")
        self._say("fault", "CMS will answer the next request with 503 and Retry-After: 2")
        self.world.plan_faults(_fault("align", "http", status=503, headers={"Retry-After": "2"}))
        self._operation("align", "aligned")
        for number, (day, visit) in enumerate(VISITS):
            self._visit(number, day, visit)

    def _subscribe(self) -> None:
        answer = self.pcp.post("/fhir/Subscription", messages.subscription(self.world.facade, self.world.pcp))
        self._say("PCP", f"subscribes to care updates: {answer.status_code}")
        address = "/fhir/Subscription/" + (json_of(answer).get("id", "") if answer.status_code < 300 else "none")
        active = self._wait(
            "the Subscription becomes active",
            lambda: json_of(self.pcp.get(address + "/$status"))["entry"][0],
            _is_active,
        )
        if active:
            self._say("facade", "the PCP's endpoint answered the handshake: the Subscription is active")

    def _operation(self, name: str, wanted: str) -> None:
        path = f"/fhir/access/Patient/${name}?entityId=ACCES12345"
        answer = self.ehr.post(path, messages.operation(name, self.track))
        location = answer.headers.get("Content-Location", "")
        self._say("EHR", f"${name}: {answer.status_code}, status at {location.rpartition('/')[2][:8]}…")
        if answer.status_code != 202:
            self.timeline.check(False, f"${name} was answered with {answer.status_code}: {answer.text[:300]}")
            return
        done = self._wait(f"a result of ${name}", lambda: self.ehr.get(location), lambda a: a.status_code == 200)
        code = _result(json_of(done)) if done is not None else "none"
        self._say("CMS", f"[bold]{code}[/]")
        self.timeline.check(code == wanted, f"${name} gave {code}, not {wanted}")

    def _visit(self, number: int, day: int, visit: Visit) -> None:
        kind = "baseline" if number == 0 else "end-of-period" if number == len(VISITS) - 1 else "quarterly"
        self.timeline.title(f"Day {day}: values for the {kind} report")
        self._go_to(BEGIN + timedelta(days=day))
        if kind == "quarterly" and number == 1:
            self._mail("quarterly-reporting-window")
        self._disturb(number)
        self._values(number, visit)
        submission = self._reported(kind, max(number, 1) if kind == "quarterly" else 1, kill=number == 0)
        self._say("CMS", f"{kind} report: [bold]{submission}[/]")
        self.timeline.check(submission == "success", f"the {kind} report ended with {submission}")
        moment = {0: "initiation", 1: "milestone", len(VISITS) - 1: "completion"}.get(number)
        if moment:
            self._update(moment)

    def _disturb(self, number: int) -> None:
        """What goes wrong with this report."""
        if number == 0:
            self.world.plan_faults(_fault("report-data", "http", status=401))
            self._say("fault", "CMS will answer the report with 401: the token counts as expired")
        elif number == 1:
            self.world.plan_faults(_fault("report-data", "reset-before"))
            self._say("fault", "CMS will cut the connection in the middle of the report")
        elif number == 2:
            pid = self.world.supervisor.kill("facade")
            self._say("fault", f"the facade (pid {pid}) is killed with SIGKILL; the senders try again until it is back")

    def _values(self, number: int, visit: Visit) -> None:
        now = self.world.now()
        code = send_mllp(self.world.mllp_port, messages.labs(visit, now, f"LAB{number:04}"))
        self._say("lab", f"ORU^R01 over MLLP (lipids, HbA1c, eGFR, uACR): {code}")
        self.timeline.check(code == "AA", f"the lab's message was acknowledged with {code}")
        answer = self.hie.post("/fhir", messages.pressures(visit, now), "application/fhir+json")
        pairs = ", ".join(f"{high}/{low}" for high, low in visit.pressures)
        self._say("device", f"three home blood pressures ({pairs}): {answer.status_code}")
        self.timeline.check(
            answer.status_code == 200, f"the device Bundle got {answer.status_code}: {answer.text[:300]}"
        )
        answer = self.hie.post("/cda", messages.clinic(visit, now, f"NOTE{number:04}"), "application/cda+xml")
        self._say("clinic", f"C-CDA with weight {visit.weight} lb, BMI and waist: {answer.status_code}")
        self.timeline.check(answer.status_code == 200, f"the C-CDA got {answer.status_code}: {answer.text[:300]}")

    def _reported(self, kind: str, number: int, *, kill: bool) -> str:
        """Waits for the report of this window; gives CMS's result code."""

        def report() -> Report | None:
            found = [r for r in self.ledger.rows(Report) if r.report_type == kind and r.number == number]
            return found[0] if found else None

        def submission() -> Submission | None:
            row = report()
            wanted = row.submission_id if row else None
            found = self.ledger.rows(Submission, Where("id", "==", wanted)) if wanted else []
            return found[0] if found else None

        sent = self._wait(
            f"the {kind} report goes out", submission, lambda s: s is not None and s.accepted_at is not None
        )
        if sent is None:
            row = report()
            return f"nothing (report {row.state}, missing {row.missing or 'nothing'})" if row else "no report"
        self._say("facade", f"{kind} report built from these values, checked, sent; CMS took it ({sent.posts} POSTs)")
        if kill:
            pid = self.world.supervisor.kill("worker")
            self._say("fault", f"the worker (pid {pid}) is killed with SIGKILL while CMS is at work, and started again")
        done = self._wait(
            f"a result of the {kind} report", submission, lambda s: s is not None and s.finished_at is not None
        )
        self._wait(f"the {kind} report is closed", report, lambda r: r is not None and r.state is ReportState.ACCEPTED)
        return str(done.result_code or done.state) if done is not None else "none"

    def _update(self, moment: str) -> None:
        """Waits until the PCP has the update, and looks at what came."""

        def delivered() -> bool:
            updates = {u.id for u in self.ledger.rows(CareUpdate) if u.moment == moment}
            rows = [d for d in self.ledger.rows(Delivery) if d.care_update_id in updates]
            return bool(rows) and all(d.state is DeliveryState.DELIVERED for d in rows)

        done = self._wait(f"the {moment} update is delivered", delivered, bool)
        last = [item for item in witness.received(self.world) if item["type"] == "event-notification"][-1:]
        resources = ", ".join(sorted(set(last[0]["resources"]) - {"Parameters"})) if last else "nothing"
        self._say("PCP", f"has the [bold]{moment}[/] update: {resources}")
        self.timeline.check(bool(done) and bool(last), f"the {moment} update did not reach the PCP")
        self.timeline.check(not last or "CarePlan" in last[0]["resources"], f"the {moment} update has no care plan")

    def _mail(self, event: str) -> None:
        seen = self._wait(
            f"the e-mail {event}", lambda: [n for n in self.ledger.rows(CmsNotification) if n.event == event], bool
        )
        if seen:
            self._say("CMS", f"sends an e-mail: {event}; the facade has read it and found the alignment")

    def _go_to(self, day: datetime) -> None:
        """Moves the clock in steps, so that what is due on the way happens on its day."""
        while (now := self.world.now()) < day:
            self.world.set_clock(min(day, now + timedelta(days=40)))
            time.sleep(0.5)
        self._say("clock", "moves on")

    def _wait(self, what: str, look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        """Looks until it is good; helps the simulated clock along, as CMS and its clients count in seconds."""
        end = time.monotonic() + STEP_SECONDS
        pushed = time.monotonic()
        while time.monotonic() < end:
            found = look()
            if good(found):
                return found
            if time.monotonic() - pushed > 0.35:
                self.world.set_clock(self.world.now() + timedelta(seconds=8))
                pushed = time.monotonic()
            time.sleep(0.05)
        self.timeline.check(False, f"{what}: did not happen within {STEP_SECONDS:.0f} s")
        return None

    def _say(self, who: str, what: str) -> None:
        self.timeline.say(self.world.now(), who, what)


def _fault(call: str, fault: str, **more: Any) -> dict[str, Any]:
    return {"call": call, "fault": fault, "times": 1, **more}


def _is_active(entry: dict[str, Any]) -> bool:
    parameters = entry["resource"]["parameter"]
    return any(p["name"] == "status" and p.get("valueCode") == "active" for p in parameters)


def _result(parameters: dict[str, Any]) -> str:
    for parameter in parameters.get("parameter", []):
        if parameter.get("name") == "result":
            return str(parameter["valueCodeableConcept"]["coding"][0]["code"])
    return "no result"


def play(*, track: str, keep: bool, json_output: bool, svg: Path | None = None, store: str | None = None) -> int:
    """Plays the year; 0 if every step ended as it must, else 1. With `keep`, the folder stays.

    `store` is the URL of an empty store: the demo has keys of its own.
    """
    if track != "CKM":
        raise FacadeError(f"The demo plays the track CKM; {track} is not there yet.")
    folder = Path(tempfile.mkdtemp(prefix="access-facade-demo-"))
    timeline = Timeline()
    if json_output:
        timeline.console.file = sys.stderr
    timeline.console.record = svg is not None
    world = made(folder, store=store)
    try:
        with world.http:
            start_cms(world)
            world.set_clock(BEGIN)
            start_facade(world)
            with Ledger(world.config) as ledger:
                rows = _played(world, ledger, timeline, track)
    finally:
        world.supervisor.stop()
        if not keep and not timeline.failed:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            timeline.console.print(f"Everything is kept in {folder}")
    if svg is not None:
        timeline.console.save_svg(str(svg), title="access-facade demo")
    if json_output:
        content = {"ok": not timeline.failed, "failed": timeline.failed, "timeline": timeline.lines, "summary": rows}
        sys.stdout.write(json.dumps(content) + "\n")
    return 1 if timeline.failed else 0


def _played(world: World, ledger: Ledger, timeline: Timeline, track: str) -> list[tuple[str, str, bool]]:
    Year(world, ledger, timeline, track).play()
    counts = witness.counted(world, ledger)
    rows = [(count.what, count.result, count.good) for count in counts]
    chain = ledger.ask(lambda context: context.store.verify_audit())
    rows.append(
        (
            f"audit rows, chain unbroken ({world.supervisor.restarts()} restarts)",
            str(chain.rows),
            chain.broken_at is None,
        )
    )
    rows.append(("open submissions", str(_open(ledger)), _open(ledger) == 0))
    timeline.summary(rows)
    for what, result, good in rows:
        timeline.check(good, f"{what}: {result}")
    timeline.console.print(
        f"{'All as it must be' if not timeline.failed else 'NOT all as it must be'}, in {timeline.seconds:.0f} s"
    )
    return rows


def _open(ledger: Ledger) -> int:
    return sum(s.state is not SubmissionState.APPLIED for s in ledger.rows(Submission))
