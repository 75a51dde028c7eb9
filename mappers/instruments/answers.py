"""One administration of an instrument: answers as numbers, scores as stated and as the public rule gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from typing import Any

from mappers.converters import decimal
from mappers.instruments.catalogue import (
    CODE,
    AnswerList,
    Instrument,
    Item,
    Resource,
    Score,
    answer_list,
    item_names,
    leaves,
    objects,
    recognise,
)
from profiles.canonical import FHIR_BASE, LOINC, ORDINAL_VALUE
from profiles.issue import Issue, Severity, error, warning

# Where senders put what an answer counts: on the coding or on the answer, under its present or an earlier name.
_ORDINALS = frozenset({ORDINAL_VALUE, FHIR_BASE + "itemWeight", FHIR_BASE + "iso21090-CO-value"})
_WHERE = "QuestionnaireResponse.item"
_EXACT = Context(prec=30)
_DIGITS = 3  # decimals of a score that does not come out even


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `counts` is its number, None when nobody says it; `code` is LOINC's, `display` the source's words."""

    item: Item
    link: str
    counts: Decimal | None
    code: str | None = None
    display: str | None = None


@dataclass(frozen=True, slots=True)
class Administration:
    """Answers and scores by CMS's linkId. `scores` are the source's; `counted` those that a public rule gives.

    With an error among `issues` it can not be reported.
    """

    instrument: Instrument
    answers: Mapping[str, Answer]
    scores: Mapping[str, Decimal]
    counted: Mapping[str, Decimal]
    issues: tuple[Issue, ...]

    def value(self, score: Score) -> Decimal | None:
        """The score as stated, else as counted."""
        stated = self.scores.get(score.link)
        return self.counted.get(score.link) if stated is None else stated


def administration(response: Resource, instrument: Instrument | None = None) -> Administration | None:
    """Reads a QuestionnaireResponse of any form that `recognise` knows; None: it is none of ACCESS's instruments.

    Shape: nothing of the response is changed, no answer is made up. A number outside the instrument's range, or two
    answers to one question, is an error; a total that is not that of the answers, a missing answer, an answer that
    nobody gives a number and a score that only the owner's table gives are warnings.
    Raises: nothing.
    """
    instrument = instrument or recognise(response)
    if instrument is None:
        return None
    reader = _Reader(instrument)
    for place, item in leaves(response):
        given = [one for one in objects(item.get("answer")) if any(name.startswith("value") for name in one)]
        if given:
            reader.take(item_names(item, response), given, f"{place}.answer")
    counted = {score.link: _count(score, instrument, reader.answers) for score in instrument.scores}
    known = {link: value for link, value in counted.items() if value is not None}
    issues = (*reader.issues, *_remarks(instrument, reader.answers, scores=reader.scores, counted=known))
    return Administration(instrument, reader.answers, reader.scores, known, issues)


class _Reader:
    """Collects answers and scores, item by item."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.answers: dict[str, Answer] = {}
        self.scores: dict[str, Decimal] = {}
        self.issues: list[Issue] = []

    def take(self, names: frozenset[str], given: list[Resource], place: str) -> None:
        """One item with its answers; an item that is no part of the instrument's form is passed over, with a word."""
        score = None
        for one in self._instrument.scores:
            if one.rule != "answer" and not names.isdisjoint(one.names):
                score = one
                break
        question = None if score else _question(names, given[0], self._instrument, number=len(self.answers) + 1)
        if score is None and question is None:
            self._pass_over(names, place)
        elif len(given) > 1:
            self.issues.append(error("value", place, "The question has several answers: send the one that counts."))
        elif score is not None:
            self._score(score, given[0], place)
        elif question is not None:
            self._answer(question, given[0], place)

    def _pass_over(self, names: frozenset[str], place: str) -> None:
        if names.isdisjoint(self._instrument.beside):
            text = (
                f"The item is no part of the {self._instrument.measure} as CMS takes it: it stays in the source only."
            )
            self.issues.append(Issue(Severity.INFORMATION, "informational", place, text))

    def _score(self, score: Score, given: Resource, place: str) -> None:
        value = _number(given)
        if value is None:
            self.issues.append(warning("value", place, "The score is not a number: it was left out."))
        elif self.scores.setdefault(score.link, value) != value:
            self.issues.append(error("conflict", place, "The score is stated twice with different numbers."))

    def _answer(self, question: tuple[Item, str], given: Resource, place: str) -> None:
        item, link = question
        made = _answer(given, item, link=link, place=place, issues=self.issues)
        if made is not None and self.answers.setdefault(link, made) != made:
            self.issues.append(error("conflict", place, "The question is answered twice, in different words."))


def _question(
    names: frozenset[str], given: Resource, instrument: Instrument, *, number: int
) -> tuple[Item, str] | None:
    """The item and its linkId in CMS's form; None: it is no question of the instrument.

    In an adaptive test every coded answer to a question with a LOINC code counts, in order.
    """
    prefix = instrument.adaptive
    own = next((name for name in names if name.startswith(prefix)), f"{prefix}{number}") if prefix else str(number)
    for item in instrument.items:
        if not names.isdisjoint(item.names):
            return item, item.link or own
    code = next((name for name in names if CODE.fullmatch(name)), None)
    if not prefix or "valueCoding" not in given or not (own in names or code) or code in instrument.beside:
        return None
    model = instrument.items[0]
    return Item("", code, (), None, "choice", True, model.low, model.high), own


def _answer(given: Resource, item: Item, *, link: str, place: str, issues: list[Issue]) -> Answer | None:
    answers = answer_list(item.answers) if item.answers else None
    coding = given.get("valueCoding")
    if isinstance(coding, dict):
        made = _coded(given, coding, item=item, link=link)
    else:
        made = Answer(item, link, _number(given))
    if not isinstance(coding, dict) and made.counts is None:
        issues.append(warning("value", place, "The answer is neither a code nor a number: it was left out."))
        return None
    if answers is not None:
        made = _by_list(made, answers, place=place, issues=issues)
    if made.counts is not None and not (item.low <= made.counts <= item.high and _fits(made.counts, item)):
        text = f"The answer is outside the instrument's numbers ({item.low} to {item.high}): correct it at its source."
        issues.append(error("value", place, text))
        return None
    return made


def _coded(given: Resource, coding: Resource, *, item: Item, link: str) -> Answer:
    stated = _ordinal(coding)
    code, display = coding.get("code"), coding.get("display")
    return Answer(
        item=item,
        link=link,
        counts=_ordinal(given) if stated is None else stated,
        code=code if coding.get("system") == LOINC and isinstance(code, str) else None,
        display=display if isinstance(display, str) else None,
    )


def _fits(counts: Decimal, item: Item) -> bool:
    return item.type == "decimal" or counts == counts.to_integral_value()


def _by_list(answer: Answer, answers: AnswerList, *, place: str, issues: list[Issue]) -> Answer:
    """The answer with the code and the number that the question's list gives it; what was stated stays."""
    if answer.code is None:
        return answer if answer.counts is None else replace(answer, code=answers.code_of(answer.counts))
    code = answers.equivalents.get(answer.code, answer.code)
    listed = answers.ordinals.get(code)
    if listed is None and answers.whole and code not in answers.uncounted:
        issues.append(warning("code-invalid", place, "The answer's code is not in the answer list of the question."))
    if answer.counts is not None and listed is not None and answer.counts != listed:
        issues.append(warning("conflict", place, "The stated number is not that of the answer's code: both are kept."))
    counts = listed if answer.counts is None else answer.counts
    return answer if (code, counts) == (answer.code, answer.counts) else replace(answer, code=code, counts=counts)


def _ordinal(holder: Resource) -> Decimal | None:
    """What an extension says that the answer counts."""
    for extension in objects(holder.get("extension")):
        if str(extension.get("url")) in _ORDINALS:
            return _plain(extension.get("valueDecimal", extension.get("valueInteger")))
    return None


def _number(answer: Resource) -> Decimal | None:
    for name in ("valueDecimal", "valueInteger"):
        if name in answer:
            return _plain(answer[name])
    quantity = answer.get("valueQuantity")
    if isinstance(quantity, dict):
        return None if "comparator" in quantity else _plain(quantity.get("value"))
    text = answer.get("valueString")
    return decimal(text) if isinstance(text, str) else None


def _plain(value: Any) -> Decimal | None:
    return Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def _count(score: Score, instrument: Instrument, answers: Mapping[str, Answer]) -> Decimal | None:
    """The score by its public rule; None when the rule is not public or does not allow so few answers."""
    rule = _RULES.get(score.rule)
    found = [answers[item.link].counts for item in instrument.scored if item.link in answers]
    numbers = [one for one in found if one is not None]
    if rule is None or not numbers or len(numbers) < (score.least or len(instrument.scored)):
        return None
    return rule(numbers)


def _sum(numbers: Sequence[Decimal]) -> Decimal:
    return sum(numbers, Decimal(0))


def _twice(numbers: Sequence[Decimal]) -> Decimal:
    return 2 * _sum(numbers)


def _quick_dash(numbers: Sequence[Decimal]) -> Decimal:
    mean = _EXACT.divide(_sum(numbers), Decimal(len(numbers)))
    return _EXACT.quantize((mean - 1) * 25, Decimal(1).scaleb(-_DIGITS)).normalize(_EXACT)


_RULES: dict[str, Callable[[Sequence[Decimal]], Decimal]] = {
    "sum": _sum,
    "twice-sum": _twice,
    "quick-dash": _quick_dash,
    "answer": _sum,
}


def _remarks(
    instrument: Instrument,
    answers: Mapping[str, Answer],
    *,
    scores: Mapping[str, Decimal],
    counted: Mapping[str, Decimal],
) -> list[Issue]:
    """What a person should know of it before it is reported."""
    if not answers and not scores:
        return [error("required", _WHERE, f"The {instrument.measure} holds no answer that is known.")]
    issues: list[Issue] = []
    missing = [] if instrument.adaptive else [item.link for item in instrument.scored if item.link not in answers]
    if missing:
        text = (
            f"The {instrument.measure} lacks {len(missing)} of {len(instrument.scored)} answers: {', '.join(missing)}."
        )
        issues.append(warning("incomplete", _WHERE, text))
    dumb = [one.link for one in answers.values() if one.counts is None and one.item.scored]
    if dumb:
        text = f"Nobody says what these answers count: {', '.join(dumb)}. Send their ordinalValue."
        issues.append(warning("incomplete", _WHERE, text))
    for score in instrument.scores:
        issues += _remark(score, instrument, stated=scores.get(score.link), counted=counted.get(score.link))
    return issues


def _remark(score: Score, instrument: Instrument, *, stated: Decimal | None, counted: Decimal | None) -> list[Issue]:
    name = instrument.measure
    if stated is not None and counted is not None and not _same(stated, counted):
        text = f"The {name}'s {score.link} is not that of its answers. It is kept as sent; ask the sender."
        return [warning("business-rule", _WHERE, text)]
    if stated is None and counted is None:
        why = "Only the owner's table gives it" if score.rule == "table" else "The answers do not suffice to count it"
        text = f"The {name} has no score {score.link}. {why}: have the source send it."
        return [warning("incomplete", _WHERE, text)]
    if stated is None and score.rule != "answer":
        text = f"The {name}'s {score.link} was not sent: it was counted from the answers ({score.source})."
        return [Issue(Severity.INFORMATION, "informational", _WHERE, text)]
    return []


def _same(stated: Decimal, counted: Decimal) -> bool:
    """Whether the stated score is the counted one, as precisely as it is stated."""
    exponent = stated.as_tuple().exponent
    if not isinstance(exponent, int) or abs(stated.adjusted()) > _DIGITS * 4:
        return False
    unit = Decimal(1).scaleb(max(min(exponent, 0), -_DIGITS))
    rounded = {counted.quantize(unit, rounding=how) for how in (ROUND_HALF_UP, ROUND_HALF_EVEN)}
    return stated in rounded
