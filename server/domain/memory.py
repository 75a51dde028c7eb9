"""Small facts that have to outlive the process."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from server.domain.record import Record, Table, sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered(Record):
    """A named fact of a participant, such as the token request style that its CMS endpoint took."""

    TABLE: ClassVar[Table] = Table("remembered", key=("participant_id", "name"))
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAssertion(Record):
    """A client assertion's `jti`: a second use is refused. Source: SMART App Launch 2.0, Backend Services."""

    TABLE: ClassVar[Table] = Table("seen_assertion", key=("issuer", "jti"), indexes=(("expires_at",),))
    issuer: str
    jti: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CmsToken(Record):
    """The current CMS access token of a participant, shared by all workers. `renew_at` is before it expires."""

    TABLE: ClassVar[Table] = Table("cms_token", key=("participant_id",))
    renew_at: datetime
    token: bytes = sealed()
