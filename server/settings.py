"""The settings: read once from one TOML file, then frozen. The only reader of files and environment for settings.

Paths in the file are relative to the file. Secrets are files, never values.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from server.domain.errors import BadConfiguration

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
AUTH_METHODS = frozenset({"private_key_jwt", "client_secret_basic", "client_secret_post", "auto"})
ROLES = frozenset({"ehr", "hie", "pcp", "operator"})
TRACKS = frozenset({"eCKM", "CKM", "MSK", "BH"})


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
    timeout_seconds: float = 20.0
    polling: Polling = field(default_factory=Polling)


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs reports and care updates: the clinical director. `npi` is a National Provider Identifier."""

    npi: str
    family: str
    given: str


@dataclass(frozen=True, slots=True)
class Participant:
    """One organization in the model. `reporting`: "review" (a person sends each report) or "automatic"."""

    entity_id: str
    name: str
    payer_id: str
    cms: CmsEndpoint
    author: Author
    tracks: tuple[str, ...] = ("eCKM", "CKM", "MSK", "BH")
    reporting: str = "review"
    time_zone: str = "America/New_York"
    mailbox: Path | None = None  # a maildir in which CMS's e-mails arrive


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


@dataclass(frozen=True, slots=True)
class Mllp:
    """The HL7 v2 listener. What comes in belongs to `participant` and is audited as `client_id`."""

    participant: str
    port: int = 2575
    host: str = "127.0.0.1"
    client_id: str = "mllp"
    max_bytes: int = 10 * 1024 * 1024
    idle_seconds: float = 60.0


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
    worker_idle_seconds: float = 0.25
    lease_seconds: float = 60.0
    mailbox_seconds: float = 30.0
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


def _settings(path: Path, data: dict[str, Any]) -> Settings:
    here = path.parent
    participants = {p["entity_id"]: _participant(here, p) for p in data.get("participant", [])}
    settings = Settings(
        path=path,
        base_url=data["base_url"].rstrip("/"),
        store_url=_store_url(here, data["store"]["url"]),
        key_file=here / data["store"]["key_file"],
        participants=participants,
        clients={c["client_id"]: _client(here, c) for c in data.get("client", [])},
        mllp=_mllp(data["mllp"], participants) if "mllp" in data else None,
        clock_url=_clock(data.get("clock", {}).get("source", "system")),
        **_given(data.get("serve", {}), "host", "port", "max_body_bytes", "max_bundle_entries", "token_seconds"),
        **_prefixed(data.get("worker", {}), concurrency="worker_concurrency", idle_seconds="worker_idle_seconds"),
        **_given(data.get("worker", {}), "lease_seconds", "mailbox_seconds"),
        subscriber_hosts=tuple(data.get("coordination", {}).get("subscriber_hosts", ())),
    )
    _check(settings)
    return settings


def _given(table: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: table[name] for name in names if name in table}


def _prefixed(table: dict[str, Any], **names: str) -> dict[str, Any]:
    return {target: table[name] for name, target in names.items() if name in table}


def _store_url(here: Path, url: str) -> str:
    relative = url.removeprefix("sqlite:///")
    return url if relative == url or Path(relative).is_absolute() else f"sqlite:///{here / relative}"


def _clock(source: str) -> str | None:
    return None if source == "system" else source


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}


def _file(here: Path, table: dict[str, Any], name: str) -> Path | None:
    return here / table[name] if name in table else None


def _participant(here: Path, table: dict[str, Any]) -> Participant:
    cms = table["cms"]
    polling = _tuples(cms.get("polling", {}))
    author = table.get("author", {})
    return Participant(
        entity_id=table["entity_id"],
        name=table["name"],
        payer_id=table["payer_id"],
        author=Author(author.get("npi", ""), author.get("family", ""), author.get("given", "")),
        mailbox=_file(here, table, "mailbox"),
        cms=CmsEndpoint(
            base_url=cms["base_url"].rstrip("/"),
            token_url=cms["token_url"],
            client_id=cms["client_id"],
            private_key_file=_file(here, cms, "private_key_file"),
            client_secret_file=_file(here, cms, "client_secret_file"),
            polling=Polling(**polling),
            **_given(cms, "auth_method", "scope", "timeout_seconds"),
        ),
        **_tuples(_given(table, "tracks", "reporting", "time_zone")),
    )


def _client(here: Path, table: dict[str, Any]) -> Client:
    return Client(
        client_id=table["client_id"],
        participant=table["participant"],
        role=table["role"],
        scope=table["scope"],
        jwks_url=table.get("jwks_url"),
        jwks_file=_file(here, table, "jwks_file"),
        client_secret_file=_file(here, table, "client_secret_file"),
    )


def _mllp(table: dict[str, Any], participants: Mapping[str, Participant]) -> Mllp:
    if "participant" not in table and len(participants) != 1:
        raise ValueError("[mllp] participant is missing: name the participant whose messages come in there")
    return Mllp(**{"participant": next(iter(participants)), **table})


def _check(settings: Settings) -> None:
    _one_of("reporting", [p.reporting for p in settings.participants.values()], frozenset({"review", "automatic"}))
    _one_of("auth_method", [p.cms.auth_method for p in settings.participants.values()], AUTH_METHODS)
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
