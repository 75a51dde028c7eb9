"""`access-facade init`: an annotated configuration, keys and secrets, in a directory of their own.

With `demo`, everything that `access-facade demo` and `make run` need: two participants at the sandbox, and clients.
Nothing that is there already is overwritten.
"""

import json
import mailbox
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from server.domain.errors import BadConfiguration
from server.keys import generate, published_jwk, write_secret
from server.store.crypto import generate_master_key

CONFIG = "access-facade.toml"
SANDBOX_CONFIG = "sandbox.toml"
MAILBOX = "mail"
STORE = "sqlite:///access.db"
SMTP_OFFSET = 2  # the SMTP sink of a demo listens two ports above the sandbox
READER = "system/*.rs system/Subscription.cruds"
WRITER = "system/*.cruds access/submit"
SENDER = "system/*.cruds"
COMMENTS_AT = 42  # the column of comments that stand beside a value
_WITH_COMMENT = re.compile(r"^(.*\S) +(# .*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client that was made, with the secret that is shown this once."""

    role: str
    client_id: str
    participant: str
    scope: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class InitResult:
    """What was made. `sandbox` and `mllp` are empty without `demo`."""

    config: Path
    facade: str
    sandbox: str
    mllp: str
    participant: str
    clients: tuple[NewClient, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape that `init --json` prints."""
        return {
            "config": str(self.config),
            "facade": self.facade,
            "sandbox": self.sandbox,
            "mllp": self.mllp,
            "participant": self.participant,
            "clients": [
                {"role": client.role, "client_id": client.client_id, "client_secret": client.client_secret}
                for client in self.clients
            ],
        }


@dataclass(frozen=True, slots=True)
class _Organization:
    entity_id: str
    name: str
    cms_client_id: str


ORGANIZATION = _Organization("ACCES12345", "Example Care", "example")
OTHER = _Organization("ACCES54321", "Other Care", "other")
DEMO_CLIENTS = (  # role, client id, participant, scope
    ("ehr", "ehr-1", ORGANIZATION.entity_id, WRITER),
    ("hie", "hie-1", ORGANIZATION.entity_id, SENDER),
    ("pcp", "pcp-1", ORGANIZATION.entity_id, READER),
    ("operator", "operator-1", ORGANIZATION.entity_id, WRITER),
    ("ehr", "ehr-2", OTHER.entity_id, WRITER),  # so that isolation can be tried
)


class _Template(string.Template):
    delimiter = "%"  # the texts speak of $align and the like


def initialise(
    directory: Path,
    *,
    demo: bool,
    facade_port: int = 8080,
    sandbox_port: int = 8090,
    mllp_port: int = 2575,
    store: str | None = None,
) -> InitResult:
    """Makes the files. Raises BadConfiguration, before anything is written, if one of them is there already."""
    organizations = (ORGANIZATION, OTHER) if demo else (ORGANIZATION,)
    clients = tuple(NewClient(*row, client_secret=secrets.token_urlsafe(32)) for row in DEMO_CLIENTS) if demo else ()
    _refuse_existing(directory, _secret_names(organizations, clients))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_keys(directory, organizations, with_jwks=demo)
    for client in clients:
        write_secret(directory / f"{client.client_id}.secret", client.client_secret.encode())
    values: dict[str, object] = {
        "facade": f"http://127.0.0.1:{facade_port}",
        "facade_port": facade_port,
        "mllp_port": mllp_port,
        "store": store or STORE,
        "smtp_port": sandbox_port + SMTP_OFFSET,
        "cms_url": f"http://127.0.0.1:{sandbox_port}" if demo else "https://fill-in.cms.example",
        "clock": f"http://127.0.0.1:{sandbox_port}/sandbox/clock" if demo else "system",
        "subscriber_hosts": '["127.0.0.1"]' if demo else "[]",
        "reporting": "automatic" if demo else "review",
        "disclosure": "false" if demo else "true",
    }
    if demo:
        mailbox.Maildir(directory / MAILBOX, create=True).close()
        _write(directory / SANDBOX_CONFIG, _sandbox_text(values, organizations))
    _write(directory / CONFIG, _config_text(values, organizations, clients))
    return InitResult(
        config=directory / CONFIG,
        facade=str(values["facade"]),
        sandbox=str(values["cms_url"]) if demo else "",
        mllp=f"127.0.0.1:{mllp_port}" if demo else "",
        participant=ORGANIZATION.entity_id,
        clients=clients,
    )


def _secret_names(organizations: Iterable[_Organization], clients: Iterable[NewClient]) -> list[str]:
    keys = [f"cms-{organization.entity_id}.pem" for organization in organizations]
    return ["master.key", "token-key.pem", *keys, *(f"{client.client_id}.secret" for client in clients)]


def _refuse_existing(directory: Path, names: Iterable[str]) -> None:
    if directory.exists() and not directory.is_dir():
        raise BadConfiguration(f"{directory} is a file: name a directory")
    for name in (CONFIG, SANDBOX_CONFIG, *names):
        if (directory / name).exists():
            raise BadConfiguration(f"{directory / name} is there already and is not overwritten: name a new directory")


def _make_keys(directory: Path, organizations: Iterable[_Organization], *, with_jwks: bool) -> None:
    generate_master_key(directory / "master.key")
    generate(directory / "token-key.pem", "ES256")
    for organization in organizations:
        signing = generate(directory / f"cms-{organization.entity_id}.pem", "ES384")
        if with_jwks:  # what CMS would be given at registration
            jwks = json.dumps({"keys": [published_jwk(signing)]}, indent=2)
            _write(directory / f"cms-{organization.entity_id}.jwks.json", jwks + "\n")
            write_secret(directory / f"cms-{organization.entity_id}.secret", secrets.token_urlsafe(32).encode())


def _config_text(
    values: dict[str, object], organizations: tuple[_Organization, ...], clients: tuple[NewClient, ...]
) -> str:
    first = {**values, "entity_id": organizations[0].entity_id}
    parts = [_filled("access-facade.toml", first)]
    if clients:
        parts.append(_filled("mllp.toml", first))
    parts += [
        _filled("participant.toml", {**values, **_organization(one, demo=bool(clients))}) for one in organizations
    ]
    for client in clients:
        row = {"client_id": client.client_id, "role": client.role, "scope": client.scope}
        parts.append(_filled("client.toml", {"entity_id": client.participant, **row}))
    if not clients:
        parts.append(_filled("clients-to-fill-in.toml", first))
    return "".join(parts)


def _organization(organization: _Organization, *, demo: bool) -> dict[str, object]:
    has_mailbox = demo and organization == ORGANIZATION
    return {
        "entity_id": organization.entity_id,
        "name": organization.name,
        "cms_client_id": organization.cms_client_id,
        "mailbox": f'mailbox = "{MAILBOX}"' if has_mailbox else f'# mailbox = "{MAILBOX}"',
    }


def _sandbox_text(values: dict[str, object], organizations: Iterable[_Organization]) -> str:
    clients = [_filled("sandbox-client.toml", _organization(one, demo=True)) for one in organizations]
    return _filled("sandbox.toml", values) + "".join(clients)


def _filled(template: str, values: dict[str, object]) -> str:
    text = _Template(files("server").joinpath("templates", template).read_text(encoding="utf-8")).substitute(values)
    return _WITH_COMMENT.sub(lambda line: f"{line[1]:<{COMMENTS_AT}}{line[2]}", text)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
