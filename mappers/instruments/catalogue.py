"""The instruments as data, and which of them a QuestionnaireResponse is.

Source: ACCESS API IG 0.9.12, data reporting; LOINC panels; PCO 1.0.0 Questionnaires 44249-1 and 69737-5.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from mappers.overrides import current, over
from profiles import canonical

Resource = dict[str, Any]

_SYSTEMS = {"LOINC": canonical.LOINC, "section": canonical.REPORT_SECTION}
CODE = re.compile(r"\d{3,7}-\d", re.ASCII)  # a LOINC code


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `link` is CMS's linkId ("" in an adaptive test), `code` LOINC's, `aliases` linkIds of other forms.

    `answers` names the LOINC answer list; `low` and `high` are the numbers that an answer may count.
    """

    link: str
    code: str | None
    aliases: tuple[str, ...]
    answers: str | None
    type: str
    scored: bool
    low: Decimal
    high: Decimal
    names: frozenset[str] = field(init=False, repr=False, compare=False)  # every linkId by which it is known

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset((self.link, self.code or "", *self.aliases)) - {""})


@dataclass(frozen=True, slots=True)
class Score:
    """One score. `rule`: sum, twice-sum, quick-dash (public), answer (the item itself), table (the owner's: not ours).

    `least` is how many answers the rule needs (0: all); `reported`: it becomes the PCO score Observation.
    """

    link: str
    code: str | None
    aliases: tuple[str, ...]
    rule: str
    least: int
    reported: bool
    source: str
    names: frozenset[str] = field(init=False, repr=False, compare=False)  # every linkId by which it is known

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset((self.link, self.code or "", *self.aliases)) - {""})


@dataclass(frozen=True, slots=True)
class Instrument:
    """One file of `tables/`. `measure` is the name in report_sections.toml; `system` and `code` name the instrument.

    `adaptive` begins the linkIds of a test whose items vary; "" for all others. `beside` are codes of questions that
    are asked with it and are no part of CMS's form.
    """

    measure: str
    title: str
    system: str
    code: str
    items: tuple[Item, ...]
    scores: tuple[Score, ...]
    forms: frozenset[str]
    beside: frozenset[str]
    adaptive: str
    scored: tuple[Item, ...] = field(init=False, repr=False, compare=False)  # the items that count

    def __post_init__(self) -> None:
        object.__setattr__(self, "scored", tuple(item for item in self.items if item.scored))

    @property
    def score(self) -> Score | None:
        """The score that is the instrument's result."""
        return next((score for score in self.scores if score.reported), None)


@dataclass(frozen=True, slots=True)
class AnswerList:
    """One LOINC answer list. `whole`: a code that is not in it is no answer. `uncounted` codes have no number."""

    ordinals: Mapping[str, Decimal]
    uncounted: frozenset[str]
    whole: bool
    equivalents: Mapping[str, str]

    def code_of(self, ordinal: Decimal) -> str | None:
        """The one answer that counts so much, if the list is whole."""
        found = [code for code, counts in self.ordinals.items() if counts == ordinal]
        return found[0] if self.whole and not self.uncounted and len(found) == 1 else None


@cache
def catalogue() -> Mapping[str, Instrument]:
    """All instruments, by measure."""
    folder = files("mappers.instruments").joinpath("tables")
    ours = {one.name: tomllib.loads(one.read_text("utf-8")) for one in folder.iterdir()}
    names = sorted({*ours, *current().names("instruments")} - {"answers.toml"})
    rows = [over("instruments", name, ours.get(name, {})) for name in names]
    made = sorted((_instrument(row) for row in rows), key=lambda one: one.measure)
    return {one.measure: one for one in made}


@cache
def answer_list(name: str) -> AnswerList:
    """An answer list of tables/answers.toml, by its LOINC code (LL358-3)."""
    ours = tomllib.loads(files("mappers.instruments").joinpath("tables/answers.toml").read_text("utf-8"))
    data = over("instruments", "answers.toml", ours)
    row = data["lists"][name]
    return AnswerList(
        ordinals={code: Decimal(counts) for code, counts in row["ordinals"].items()},
        uncounted=frozenset(row.get("uncounted", ())),
        whole=row["whole"],
        equivalents={one["from"]: one["to"] for one in data["equivalent"] if one["answers"] == name},
    )


def _instrument(row: dict[str, Any]) -> Instrument:
    return Instrument(
        measure=row["measure"],
        title=row["title"],
        system=_SYSTEMS[row["system"]],
        code=row["code"],
        items=tuple(_item(one) for one in row["item"]),
        scores=tuple(_score(one) for one in row.get("score", ())),
        forms=frozenset(row.get("forms", ())),
        beside=frozenset(row.get("beside", ())),
        adaptive=row.get("adaptive", ""),
    )


def _item(row: dict[str, Any]) -> Item:
    low, high = row["range"]
    return Item(
        link=row.get("link", ""),
        code=row.get("code"),
        aliases=tuple(row.get("aliases", ())),
        answers=row.get("answers"),
        type=row.get("type", "choice"),
        scored=row.get("scored", True),
        low=Decimal(low),
        high=Decimal(high),
    )


def _score(row: dict[str, Any]) -> Score:
    return Score(
        link=row["link"],
        code=row.get("code"),
        aliases=tuple(row.get("aliases", ())),
        rule=row["rule"],
        least=row.get("least", 0),
        reported=row.get("reported", False),
        source=row["source"],
    )


def recognise(response: Resource) -> Instrument | None:
    """The instrument that a QuestionnaireResponse answers; None: none of ACCESS's, or it can not be told.

    In this order: the panel or form that `questionnaire` names; linkIds, aliases or a score that only one instrument
    has; LOINC codes of all counted items. Items that several instruments share (PROMIS banks) prove nothing alone, and
    a form that another panel's code names (PHQ-2) is none of ours.
    """
    known = tuple(catalogue().values())
    named = _panels(response)
    for one in known:
        if not named.isdisjoint({one.code, *one.forms}):
            return one
    names = frozenset(name for _, item in leaves(response) for name in item_names(item, response))
    own = [one for one in known if _is_own(one, names)]
    if len(own) == 1:
        return own[0]
    whole = [one for one in known if not one.adaptive and _is_whole(one, names)]
    return whole[0] if len(whole) == 1 and not any(CODE.fullmatch(name) for name in named) else None


def _is_own(instrument: Instrument, names: frozenset[str]) -> bool:
    if instrument.adaptive and any(name.startswith(instrument.adaptive) for name in names):
        return True
    links = {item.link for item in instrument.items}
    aliases = {alias for item in instrument.items for alias in item.aliases}
    scores = {score.code for score in instrument.scores}
    return not names.isdisjoint(links - {""}) or len(names & aliases) > 1 or not names.isdisjoint(scores - {None})


def _is_whole(instrument: Instrument, names: frozenset[str]) -> bool:
    codes = {item.code for item in instrument.scored}
    return None not in codes and codes <= names


def _panels(response: Resource) -> frozenset[str]:
    """What `questionnaire` says: the URL without version, the LOINC code at its end, codes of a contained form."""
    url = canonical.unversioned(_text(response.get("questionnaire")))
    found = {url, url.rstrip("/").rpartition("/")[2]} - {""}
    for form in _contained(response):
        found |= {_text(coding.get("code")) for coding in objects(form.get("code"))} - {""}
    return frozenset(found)


def _contained(response: Resource) -> list[Resource]:
    return [one for one in objects(response.get("contained")) if one.get("resourceType") == "Questionnaire"]


def leaves(response: Resource) -> Iterator[tuple[str, Resource]]:
    """Every item with an answer or without parts, with its FHIRPath; groups are opened, to the depth of FHIR JSON."""
    yield from _leaves(response, "QuestionnaireResponse")


def _leaves(holder: Resource, place: str) -> Iterator[tuple[str, Resource]]:
    for index, item in enumerate(objects(holder.get("item"))):
        here = f"{place}.item[{index}]"
        parts = objects(item["item"]) if "item" in item else ()
        if not parts or "answer" in item:
            yield here, item
        if parts:
            yield from _leaves(item, here)
        for number, answer in enumerate(objects(item.get("answer"))):
            if "item" in answer:
                yield from _leaves(answer, f"{here}.answer[{number}]")


def item_names(item: Resource, response: Resource) -> frozenset[str]:
    """The names of an item: its linkId, the LOINC code at its end (`/44250-9`), the code of a contained form."""
    link = _text(item.get("linkId"))
    last = link.rpartition("/")[2]
    names = {link} | ({last} if CODE.fullmatch(last) else set())
    if "contained" not in response:
        return frozenset(names - {""})
    for form in _contained(response):
        for _, question in _leaves(form, ""):
            if question.get("linkId") == link:
                codings = objects(question.get("code"))
                names |= {_text(one.get("code")) for one in codings if one.get("system") == canonical.LOINC}
    return frozenset(names - {""})


def objects(value: Any) -> list[Resource]:
    """The objects of a list, or the one object; nothing for anything else: what was posted may be of any shape."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
