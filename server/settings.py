"""The settings: read once from one TOML file, then frozen. The only reader of files and environment for settings.

Paths in the file are relative to the file. Secrets are files, never values.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from profiles.library import ACCESS_VERSION, access_versions
from server.domain.errors import BadConfiguration

T = TypeVar("T")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
AUTH_METHODS = frozenset({"private_key_jwt", "client_secret_basic", "client_secret_post", "auto"})
ROLES = frozenset({"ehr", "hie", "pcp", "operator"})
TRACKS = frozenset({"eCKM", "CKM", "MSK", "BH"})
MEDIA_TYPES = frozenset({"application/json", "application/fhir+json"})


@dataclass(frozen=True, slots=True)
class Polling:
    """When CMS is asked. Source: ACCESS API IG 0.9.12, guidance: first after 5-10 s, then every 10-30 s, 5 minutes."""

    first_seconds: tuple[float, float] = (5.0, 10.0)
    every_seconds: tuple[float, float] = (10.0, 30.0)
    notify_after_seconds: float = 300.0
    slow_seconds: tuple[float, float] = (300.0, 900.0)  # the slow lane after that


@dataclass(frozen=True, slots=True)
class CmsEndpoint:
    """How one participant talks to CMS."""

    base_url: str
    token_url: str
    client_id: str
    auth_method: str = "auto"
    private_key_file: Path | None = None
    client_secret_file: Path | None = None
    scope: str = "cdx/*.read cdx/fhir-resource.write"
    timeout_seconds: float = 20.0  # of one whole exchange, however slowly its bytes come
    # Where the guide contradicts itself or is silent, the default is what CMS's test environment was seen to take.
    auth_order: tuple[str, ...] = ("client_secret_basic", "client_secret_post", "private_key_jwt")  # of `auto`
    token_margin_seconds: float = 60.0  # a token is renewed so long before it ends, or a fifth of its life if less
    fresh_per_submission: bool = False  # a new token for each submission, as one sentence of the guide recommends
    prefer_respond_async: bool = True
    content_type: str = "application/json"  # before guide version 0.9.11: application/fhir+json
    accept: str = "application/json"
    status_entity_id: bool = False  # `entityId` on the status URL: the guide does not say; the URL is used as given
    posts_per_second: float = 10.0  # to one operation; CMS names no limit
    pause_seconds: float = 300.0  # after a 403, a 404 or refused credentials
    polling: Polling = field(default_factory=Polling)


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs reports and care updates: the clinical director. `npi` is a National Provider Identifier."""

    npi: str = ""
    family: str = ""
    given: str = ""


@dataclass(frozen=True, slots=True)
class Participant:
    """One organization in the model. `reporting`: "review" (a person sends each report) or "automatic"."""

    entity_id: str
    name: str
    payer_id: str
    cms: CmsEndpoint
    author: Author
    guide: str = ACCESS_VERSION  # the version of CMS's guide that its requests are checked against
    tracks: tuple[str, ...] = ("eCKM", "CKM", "MSK", "BH")
    reporting: str = "review"
    time_zone: str = "America/New_York"
    mailbox: Path | None = None  # a maildir in which CMS's e-mails arrive
    disclosure_required: bool = True  # the first question to CMS needs a stored Consent: CMS's disclosure was given
    switch_consent_required: bool = True  # an attestation of a switch needs a stored Consent


@dataclass(frozen=True, slots=True)
class Client:
    """One system that may call. `role`: ehr, hie, pcp, operator."""

    client_id: str
    participant: str
    role: str
    scope: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    client_secret_file: Path | None = None
    webhook: str | None = None  # is told of CMS's results to this client's requests: a Subscription kept for it
    webhook_header_file: Path | None = None  # lines `Name: value` that go with each call


@dataclass(frozen=True, slots=True)
class Mllp:
    """The HL7 v2 listener. What comes in belongs to `participant` and is audited as `client_id`.

    With a certificate and its key it speaks TLS only; with `client_ca_file` the peer must show a certificate as well.
    """

    participant: str
    port: int = 2575
    host: str = "127.0.0.1"
    client_id: str = "mllp"
    max_bytes: int = 10 * 1024 * 1024
    max_connections: int = 2000
    idle_seconds: float = 60.0
    frame_seconds: float = 30.0  # from a frame's first byte to its last; for the peer to take an answer
    certificate_file: Path | None = None  # PEM, the chain included
    private_key_file: Path | None = None  # PEM, not encrypted
    client_ca_file: Path | None = None  # PEM: who signs the peers' certificates


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. `clock_url` None is the machine's clock."""

    path: Path
    base_url: str
    store_url: str
    key_file: Path
    participants: Mapping[str, Participant]
    clients: Mapping[str, Client]
    mllp: Mllp | None = None
    clock_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: int = 10 * 1024 * 1024
    max_bundle_entries: int = 500
    token_seconds: int = 300
    worker_concurrency: int = 16
    worker_poll_concurrency: int = 128  # polls of CMS at a time, beside the other jobs
    worker_idle_seconds: float = 0.25
    lease_seconds: float = 60.0
    mailbox_seconds: float = 30.0
    mappings_folder: Path | None = None  # rows of your own over the mapping tables: docs/mapping.md
    profiles_folder: Path | None = None  # definitions that `profiles load` derived from official packages
    subscriber_hosts: tuple[str, ...] = ()  # hosts that rest-hook endpoints may name; loopback http only if listed here

    def participant(self, entity_id: str) -> Participant:
        """The participant of that id; BadConfiguration if there is none."""
        try:
            return self.participants[entity_id]
        except KeyError:
            raise BadConfiguration(f"no [[participant]] with entity_id {entity_id}") from None


def default_path() -> Path:
    """`ACCESS_FACADE_CONFIG`, or `access-facade.toml` here."""
    return Path(os.environ.get("ACCESS_FACADE_CONFIG", "access-facade.toml"))


def load(path: Path) -> Settings:
    """Reads and checks the file. Raises BadConfiguration that names the key and the remedy."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfiguration(f"{path}: no such file; make one with `access-facade init DIR`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as bad:
        raise BadConfiguration(f"{path}: not TOML: {bad}") from None
    try:
        return _settings(path.resolve(), data)
    except KeyError as missing:
        raise BadConfiguration(f"{path}: the key {missing} is missing") from None
    except (TypeError, ValueError) as bad:
        raise BadConfiguration(f"{path}: {bad}") from None


# Where the keys of the small tables go: table -> key -> field of Settings.
TABLES: dict[str, dict[str, str]] = {
    "store": {"url": "store_url", "key_file": "key_file"},
    "serve": {name: name for name in ("host", "port", "max_body_bytes", "max_bundle_entries", "token_seconds")},
    "worker": {
        "concurrency": "worker_concurrency",
        "poll_concurrency": "worker_poll_concurrency",
        "idle_seconds": "worker_idle_seconds",
        "lease_seconds": "lease_seconds",
        "mailbox_seconds": "mailbox_seconds",
    },
    "clock": {"source": "clock_url"},
    "coordination": {"subscriber_hosts": "subscriber_hosts"},
    "mappings": {"folder": "mappings_folder"},
    "profiles": {"folder": "profiles_folder"},
}
OTHERS = ("base_url", "participant", "client", "mllp")


def _settings(path: Path, data: dict[str, Any]) -> Settings:
    here = path.parent
    _known("the file", data, (*TABLES, *OTHERS))
    flat: dict[str, Any] = {}
    for name, keys in TABLES.items():
        _known(f"[{name}]", data.get(name, {}), keys)
        flat |= {keys[key]: value for key, value in data.get(name, {}).items()}
    if flat.get("clock_url") == "system":
        del flat["clock_url"]
    participants = _named("participant", "entity_id", [_participant(here, p) for p in data.get("participant", [])])
    clients = [_built(Client, c, here, "[[client]]") for c in data.get("client", [])]
    settings = _built(
        Settings,
        flat | {"store_url": _store_url(here, data["store"]["url"])},
        here,
        "[store]",
        path=path,
        base_url=data["base_url"].rstrip("/"),
        participants=participants,
        clients=_named("client", "client_id", clients),
        mllp=_mllp(data["mllp"], here, participants) if "mllp" in data else None,
    )
    _check(settings)
    return settings


def _known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    """A key that is not known is most likely mistyped: it is refused, never passed over."""
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, list(names), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(names))}"
            raise ValueError(f"{where} has the key {key}, which is not known: {hint}")


def _named(what: str, key: str, items: list[T]) -> dict[str, T]:
    names = [getattr(item, key) for item in items]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two [[{what}]] have the {key} {name}: remove or rename one")
    return dict(zip(names, items, strict=True))


def _built(kind: type[T], table: Mapping[str, Any], here: Path, where: str, **made: Any) -> T:
    """The dataclass of a table: its keys are the fields; paths are relative to the file; lists become tuples."""
    known = {each.name: each for each in fields(cast(Any, kind)) if each.name not in made}
    _known(where, table, known)
    for each in known.values():
        if each.name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where}: the key {each.name!r} is missing")
    return kind(**{name: _value(known[name].type, value, here) for name, value in table.items()}, **made)


def _value(declared: Any, value: Any, here: Path) -> Any:
    if declared is Path or Path in get_args(declared):
        return here / value
    return tuple(value) if isinstance(value, list) else value


def _store_url(here: Path, url: str) -> str:
    relative = url.removeprefix("sqlite:///")
    return url if relative == url or Path(relative).is_absolute() else f"sqlite:///{here / relative}"


def _participant(here: Path, table: dict[str, Any]) -> Participant:
    table = dict(table)
    where = f"[[participant]] {table.get('entity_id', '')}".rstrip()
    cms = dict(table.pop("cms", {}))
    polling = _built(Polling, cms.pop("polling", {}), here, f"{where} [participant.cms.polling]")
    for url in ("base_url", "token_url"):
        if url in cms:
            cms[url] = cms[url].rstrip("/")
    return _built(
        Participant,
        table,
        here,
        where,
        author=_built(Author, table.pop("author", {}), here, f"{where} [participant.author]"),
        cms=_built(CmsEndpoint, cms, here, f"{where} [participant.cms]", polling=polling),
    )


def _mllp(table: dict[str, Any], here: Path, participants: Mapping[str, Participant]) -> Mllp:
    if "participant" not in table and len(participants) != 1:
        raise ValueError("[mllp] participant is missing: name the participant whose messages come in there")
    return _built(Mllp, {"participant": next(iter(participants)), **table}, here, "[mllp]")


def _check(settings: Settings) -> None:
    _one_of("reporting", [p.reporting for p in settings.participants.values()], frozenset({"review", "automatic"}))
    _one_of("guide", [p.guide for p in settings.participants.values()], frozenset(access_versions()))
    _one_of("auth_method", [p.cms.auth_method for p in settings.participants.values()], AUTH_METHODS)
    endpoints = [p.cms for p in settings.participants.values()]
    _one_of("auth_order", [m for cms in endpoints for m in cms.auth_order], AUTH_METHODS - {"auto"})
    _one_of("content_type", [cms.content_type for cms in endpoints], MEDIA_TYPES)
    if any(cms.posts_per_second <= 0 for cms in endpoints):
        raise ValueError("posts_per_second must be more than 0")
    _one_of("tracks", [t for p in settings.participants.values() for t in p.tracks], TRACKS)
    _one_of("role", [c.role for c in settings.clients.values()], ROLES)
    _one_of("client participant", [c.participant for c in settings.clients.values()], frozenset(settings.participants))
    for participant in settings.participants.values():
        try:
            ZoneInfo(participant.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"time_zone {participant.time_zone!r} is not an IANA zone name") from None
        if settings.clock_url and urlsplit(participant.cms.base_url).hostname not in LOOPBACK:
            raise ValueError(
                "[clock] source is a sandbox's clock, which is refused unless every CMS base_url is loopback: "
                'set source = "system"'
            )


def _one_of(name: str, values: list[str], allowed: frozenset[str]) -> None:
    for value in values:
        if value not in allowed:
            raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(sorted(allowed))}")
