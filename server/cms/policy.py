"""What each answer of CMS means for a submission: two tables, one for the POST, one for the poll.

Source: ACCESS API IG 0.9.12, guidance (errors, polling); rows that the guide does not give (409, 422, 429) follow
what a client must assume when the sender can not tell.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

RETRY_AFTER_CAP = 3600.0  # seconds: a longer wish is not believed


class Verdict(StrEnum):
    """What to do next."""

    ACCEPTED = "accepted"  # 202: CMS has it
    RESULT = "result"  # CMS decided, for or against
    WAIT = "wait"  # still working
    LATER = "later"  # not taken: the same request again, later
    RENEW = "renew"  # new token, repeat once
    PAUSE = "pause"  # not allowed: a person, and a slow retry
    UNCERTAIN = "uncertain"  # CMS may have it
    REVIEW = "review"  # a person has to decide


POST: dict[int, Verdict] = {
    202: Verdict.ACCEPTED,
    401: Verdict.RENEW,
    403: Verdict.PAUSE,
    408: Verdict.UNCERTAIN,
    429: Verdict.LATER,
    503: Verdict.LATER,
}
POST_FAMILY = {2: Verdict.UNCERTAIN, 3: Verdict.REVIEW, 4: Verdict.REVIEW, 5: Verdict.UNCERTAIN}

POLL: dict[int, Verdict] = {
    200: Verdict.RESULT,
    202: Verdict.WAIT,
    401: Verdict.RENEW,
    403: Verdict.PAUSE,
    404: Verdict.REVIEW,
    408: Verdict.LATER,
    410: Verdict.REVIEW,
    429: Verdict.LATER,
}
POLL_FAMILY = {2: Verdict.LATER, 3: Verdict.REVIEW, 4: Verdict.RESULT, 5: Verdict.LATER}


def of_post(status: int) -> Verdict:
    """The meaning of an answer to a POST."""
    return POST.get(status) or POST_FAMILY.get(status // 100, Verdict.UNCERTAIN)


def of_poll(status: int) -> Verdict:
    """The meaning of an answer to a poll."""
    return POLL.get(status) or POLL_FAMILY.get(status // 100, Verdict.LATER)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """`Retry-After` in seconds, from either of its forms; None if absent or senseless. Source: RFC 9110, 10.2.3."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), RETRY_AFTER_CAP)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), RETRY_AFTER_CAP)


def backoff_seconds(attempt: int, *, first: float = 2.0, cap: float = 300.0) -> float:
    """The middle of the wait before the attempt after `attempt` (from 1): doubled each time, capped."""
    return min(cap, first * 2.0 ** (min(attempt, 12) - 1))
