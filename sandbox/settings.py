"""What the sandbox is started with: one TOML file, all of it optional. Paths are relative to the file."""

import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SENDER = "access-notices@cms.example"
SEED = "access-2026"
METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")


class BadSettings(Exception):
    """The configuration cannot be used; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Client:
    """Credentials of one participant's system.

    Secrets and keys are read when used, so that they can be rotated; a file that cannot be read opens nothing.
    """

    client_id: str
    entity_id: str | None = None
    client_secret_file: Path | None = None
    jwks_file: Path | None = None
    jwks_url: str | None = None
    methods: tuple[str, ...] | None = None

    def secret(self) -> str | None:
        """The registered secret, or None."""
        with suppress(OSError):
            return self.client_secret_file.read_text(encoding="utf-8").strip() if self.client_secret_file else None
        return None

    def keys(self) -> list[dict[str, Any]]:
        """The registered public keys as JWKs."""
        with suppress(OSError, ValueError, KeyError):
            keys: list[dict[str, Any]] = json.loads(self.jwks_file.read_bytes())["keys"] if self.jwks_file else []
            return keys
        return []


@dataclass(frozen=True, slots=True)
class Smtp:
    """Where notices go. `to`: one address for all participants, or one for each participant id."""

    host: str
    port: int
    to: str | Mapping[str, str]
    sender: str = SENDER

    def address(self, entity_id: str) -> str | None:
        """A participant's address, or None if it has none."""
        return self.to if isinstance(self.to, str) else self.to.get(entity_id)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. No clients: any client id with any secret is taken. `data` None: the state is in memory."""

    latency: float = 2.0
    data: Path | None = None
    clients: Mapping[str, Client] = field(default_factory=dict)
    methods: tuple[str, ...] = METHODS
    smtp: Smtp | None = None
    seed: str = SEED
    definitions: Path | None = None


def load(path: Path | None, **given: Any) -> Settings:
    """Reads the file, if any; what is `given` and not None goes before it. Raises BadSettings."""
    try:
        settings = (
            Settings() if path is None else _settings(path.resolve().parent, tomllib.loads(path.read_text("utf-8")))
        )
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as bad:
        raise BadSettings(f"{path}: {bad}") from None
    except KeyError as missing:
        raise BadSettings(f"{path}: the key {missing} is missing") from None
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _settings(here: Path, data: dict[str, Any]) -> Settings:
    own = data.get("sandbox", {})
    return Settings(
        latency=float(own.get("latency", 2.0)),
        data=_path(here, own, "data"),
        clients={row["client_id"]: _client(here, row) for row in data.get("client", [])},
        methods=_methods(own.get("auth_methods", METHODS)),
        smtp=_smtp(data["smtp"]) if "smtp" in data else None,
        seed=own.get("seed", SEED),
        definitions=_path(here, own, "definitions"),
    )


def _client(here: Path, row: dict[str, Any]) -> Client:
    return Client(
        client_id=row["client_id"],
        entity_id=row.get("entity_id"),
        client_secret_file=_path(here, row, "client_secret_file"),
        jwks_file=_path(here, row, "jwks_file"),
        jwks_url=row.get("jwks_url"),
        methods=_methods(row["methods"]) if "methods" in row else None,
    )


def _smtp(row: dict[str, Any]) -> Smtp:
    return Smtp(host=row["host"], port=int(row["port"]), to=row["to"], sender=row.get("from", SENDER))


def _path(here: Path, row: dict[str, Any], name: str) -> Path | None:
    return here / row[name] if name in row else None


def _methods(names: Any) -> tuple[str, ...]:
    unknown = set(names) - set(METHODS)
    if unknown:
        raise BadSettings(f"auth methods {sorted(unknown)} are unknown: use {', '.join(METHODS)}")
    return tuple(names)
