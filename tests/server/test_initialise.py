"""`init` makes a configuration that the facade and the sandbox can start with, and keeps its secrets."""

import stat
import string
import tomllib
from pathlib import Path

import pytest

from server.auth import Authority
from server.domain.errors import BadConfiguration
from server.initialise import initialise
from server.keys import cms_signing_key
from server.settings import Settings, load

ENTITIES = {"ACCES12345": "example", "ACCES54321": "other"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo, made once."""
    folder = tmp_path_factory.mktemp("init") / "demo"
    initialise(folder, demo=True, facade_port=18080, sandbox_port=18090, mllp_port=12575)
    return folder


@pytest.fixture(scope="module")
def settings(directory: Path) -> Settings:
    """Its settings."""
    return load(directory / "access-facade.toml")


def test_the_demo_has_what_the_demo_needs(settings: Settings) -> None:
    """Two participants at the sandbox, its clock, the listener, the mailbox and the clients of each role."""
    assert settings.clock_url == "http://127.0.0.1:18090/sandbox/clock"
    assert settings.port == 18080
    assert settings.mllp is not None
    assert (settings.mllp.port, settings.mllp.participant) == (12575, "ACCES12345")
    assert {name: one.cms.client_id for name, one in settings.participants.items()} == ENTITIES
    first = settings.participant("ACCES12345")
    assert (first.name, first.payer_id, first.reporting) == ("Example Care", "00831", "automatic")
    assert (first.author.npi, first.author.family, first.author.given) == ("1234567893", "Smith", "Jane")
    assert first.cms.base_url == "http://127.0.0.1:18090/fhir"
    assert first.mailbox is not None
    assert {part.name for part in first.mailbox.iterdir()} == {"cur", "new", "tmp"}
    assert settings.participant("ACCES54321").mailbox is None
    assert settings.subscriber_hosts == ("127.0.0.1",)
    roles = {client.client_id: (client.role, client.participant) for client in settings.clients.values()}
    assert roles == {
        "ehr-1": ("ehr", "ACCES12345"),
        "hie-1": ("hie", "ACCES12345"),
        "pcp-1": ("pcp", "ACCES12345"),
        "operator-1": ("operator", "ACCES12345"),
        "ehr-2": ("ehr", "ACCES54321"),
    }


def test_the_facade_can_authenticate_with_it(settings: Settings) -> None:
    """All keys and secrets that the settings name are there and of use."""
    Authority(settings, None, None)  # type: ignore[arg-type]
    for participant in settings.participants.values():
        assert participant.cms.private_key_file is not None
        assert cms_signing_key(participant.cms.private_key_file).alg == "ES384"


def test_secrets_are_for_the_owner_only(directory: Path) -> None:
    """Every key and secret has mode 0600, and none stands in a configuration."""
    hidden = [path for path in directory.iterdir() if path.suffix in {".key", ".pem", ".secret"}]
    assert len(hidden) == 11
    assert {stat.S_IMODE(path.stat().st_mode) for path in hidden} == {0o600}
    texts = "".join(path.read_text() for path in directory.glob("*.toml"))
    assert not [path for path in directory.glob("*.secret") if path.read_text() in texts]


def test_the_sandbox_knows_both_participants(directory: Path) -> None:
    """Client id, entity id, secret and public keys, and where its e-mails go."""
    data = tomllib.loads((directory / "sandbox.toml").read_text())
    assert {row["entity_id"]: row["client_id"] for row in data["client"]} == ENTITIES
    assert data["smtp"]["port"] == 18092
    for row in data["client"]:
        assert (directory / row["client_secret_file"]).exists()
        assert '"d"' not in (directory / row["jwks_file"]).read_text()


def test_the_result_is_what_the_contract_says(tmp_path: Path) -> None:
    """The JSON of `init --json`, with each secret once."""
    made = initialise(tmp_path / "x", demo=True).as_json()
    clients = made.pop("clients")
    assert made == {
        "config": str(tmp_path / "x" / "access-facade.toml"),
        "facade": "http://127.0.0.1:8080",
        "sandbox": "http://127.0.0.1:8090",
        "mllp": "127.0.0.1:2575",
        "participant": "ACCES12345",
    }
    assert all(client.keys() == {"role", "client_id", "client_secret"} for client in clients)
    for client in clients:
        assert (tmp_path / "x" / f"{client['client_id']}.secret").read_text() == client["client_secret"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second run is refused in a plain sentence, and changes nothing."""
    initialise(tmp_path, demo=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadConfiguration, match="is there already and is not overwritten"):
        initialise(tmp_path, demo=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_left_over_key_is_not_used_again(tmp_path: Path) -> None:
    """A key without a configuration is refused before anything is written."""
    (tmp_path / "token-key.pem").write_text("old")
    with pytest.raises(BadConfiguration, match="token-key.pem"):
        initialise(tmp_path, demo=False)
    assert [path.name for path in tmp_path.iterdir()] == ["token-key.pem"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Said plainly."""
    (tmp_path / "x").touch()
    with pytest.raises(BadConfiguration, match="name a directory"):
        initialise(tmp_path / "x", demo=False)


def test_without_demo_the_file_is_to_be_filled_in(tmp_path: Path) -> None:
    """It loads, names CMS by an obvious placeholder, reviews reports, and lets no client in."""
    made = initialise(tmp_path, demo=False)
    settings = load(made.config)
    assert (made.sandbox, made.mllp, made.clients) == ("", "", ())
    assert (settings.clients, settings.mllp, settings.clock_url) == ({}, None, None)
    (participant,) = settings.participants.values()
    assert "fill-in" in participant.cms.base_url
    assert participant.reporting == "review"


def test_every_setting_is_explained(directory: Path) -> None:
    """Each key that the settings can read stands in the annotated file."""
    text = (directory / "access-facade.toml").read_text()
    words = set("".join(c if c in string.ascii_letters + "_" else " " for c in text).split())
    keys = """base_url url key_file host port max_body_bytes max_bundle_entries token_seconds concurrency idle_seconds
    lease_seconds mailbox_seconds source subscriber_hosts participant client_id max_bytes entity_id name payer_id tracks
    reporting time_zone mailbox npi family given token_url auth_method private_key_file client_secret_file scope
    timeout_seconds first_seconds every_seconds notify_after_seconds slow_seconds role jwks_url jwks_file"""
    assert not set(keys.split()) - words
