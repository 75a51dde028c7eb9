"""What each answer of CMS means for a submission: two tables, one for the POST, one for the poll.

Source: ACCESS API IG 0.9.12, guidance (errors, polling); rows that the guide does not give (409, 422, 429) follow
what a client must assume when the sender can not tell.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

RETRY_AFTER_CAP = 3600.0  # seconds: a longer wish is not believed


class Verdict(StrEnum):
    """What to do next."""

    ACCEPTED = "accepted"  # 202: CMS has it
    RESULT = "result"  # CMS decided, for or against
    WAIT = "wait"  # still working
    LATER = "later"  # not taken, or not answered: the same request again, later
    RENEW = "renew"  # new token, repeat once
    PAUSE = "pause"  # not allowed: all such calls of the participant wait, a person is told
    MISDIRECTED = "misdirected"  # no such address: all calls of the operation wait, a person is told
    UNCERTAIN = "uncertain"  # CMS may have it: the same bytes again
    RECONCILE = "reconcile"  # CMS has it, or had it, but gave no status URL: the same bytes again, a few times
    GONE = "gone"  # CMS does not know its own status URL: asked again, a few times; never POSTed again
    REVIEW = "review"  # a person has to decide


POST: dict[int, Verdict] = {
    202: Verdict.ACCEPTED,
    401: Verdict.RENEW,
    403: Verdict.PAUSE,
    404: Verdict.MISDIRECTED,
    408: Verdict.UNCERTAIN,
    409: Verdict.RECONCILE,
    429: Verdict.LATER,
    503: Verdict.LATER,
}
POST_FAMILY = {2: Verdict.RECONCILE, 3: Verdict.REVIEW, 4: Verdict.REVIEW, 5: Verdict.UNCERTAIN}

# A redirect at a poll is not followed; it may be a maintenance page, so polling goes on.
POLL: dict[int, Verdict] = {
    200: Verdict.RESULT,
    202: Verdict.WAIT,
    401: Verdict.RENEW,
    403: Verdict.PAUSE,
    404: Verdict.GONE,
    408: Verdict.LATER,
    410: Verdict.GONE,
    429: Verdict.LATER,
}
POLL_FAMILY = {2: Verdict.LATER, 3: Verdict.LATER, 4: Verdict.RESULT, 5: Verdict.LATER}


def of_post(status: int) -> Verdict:
    """The meaning of an answer to a POST."""
    return POST.get(status) or POST_FAMILY.get(status // 100, Verdict.UNCERTAIN)


def of_poll(status: int) -> Verdict:
    """The meaning of an answer to a poll."""
    return POLL.get(status) or POLL_FAMILY.get(status // 100, Verdict.LATER)


def is_overload(status: int) -> bool:
    """Whether the answer says that CMS is in trouble or wants fewer calls, whatever was asked."""
    return status in (408, 429) or status >= 500


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """`Retry-After` in seconds, from either of its forms; None if absent or senseless. Source: RFC 9110, 10.2.3."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), RETRY_AFTER_CAP)
    try:
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return min(max((when - now).total_seconds(), 0.0), RETRY_AFTER_CAP)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def longest_retry_after(values: Iterable[str], now: datetime) -> float | None:
    """Of a header that may have been sent more than once: the longest wish that can be read."""
    wishes = [retry_after_seconds(value, now) for value in values]
    return max((wish for wish in wishes if wish is not None), default=None)


def backoff_seconds(attempt: int, *, first: float = 2.0, cap: float = 300.0) -> float:
    """The middle of the wait before the attempt after `attempt` (from 1): doubled each time, capped."""
    return min(cap, first * 2.0 ** (min(attempt, 12) - 1))
