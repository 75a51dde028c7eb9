"""Settings are read once, and wrong ones are refused in a sentence that names the key and the remedy."""

from pathlib import Path

import pytest

from server.domain.errors import BadConfiguration
from server.settings import load

GOOD = """
base_url = "http://127.0.0.1:8080/"
[store]
url = "sqlite:///access.db"
key_file = "master.key"
[mllp]
port = 2600
[clock]
source = "system"
[[participant]]
entity_id = "ACCES12345"
name = "Example Care"
payer_id = "00831"
reporting = "review"
tracks = ["CKM"]
  [participant.cms]
  base_url = "https://cms.example/fhir/"
  token_url = "https://cms.example/token"
  client_id = "example"
  private_key_file = "cms.pem"
    [participant.cms.polling]
    first_seconds = [1, 2]
[[client]]
client_id = "ehr-1"
participant = "ACCES12345"
role = "ehr"
client_secret_file = "ehr.secret"
scope = "system/*.rs"
"""


def _load(folder: Path, text: str) -> object:
    path = folder / "access-facade.toml"
    path.write_text(text)
    return load(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Wherever the process was started."""
    (tmp_path / "access-facade.toml").write_text(GOOD)
    settings = load(tmp_path / "access-facade.toml")
    assert settings.base_url == "http://127.0.0.1:8080"
    assert settings.key_file == tmp_path / "master.key"
    assert settings.store_url == f"sqlite:///{tmp_path / 'access.db'}"
    assert settings.clients["ehr-1"].client_secret_file == tmp_path / "ehr.secret"
    cms = settings.participant("ACCES12345").cms
    assert (cms.private_key_file, cms.base_url) == (tmp_path / "cms.pem", "https://cms.example/fhir")
    assert cms.polling.first_seconds == (1, 2)
    assert settings.mllp is not None
    assert (settings.mllp.port, settings.mllp.participant) == (2600, "ACCES12345")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('base_url = "http://127.0.0.1:8080/"', "", "'base_url' is missing"),
        ('key_file = "master.key"', "", "'key_file' is missing"),
        ('client_id = "example"', "", "'client_id' is missing"),
        ('role = "ehr"', 'role = "admin"', "role = 'admin': it must be one of ehr, hie, operator, pcp"),
        ('tracks = ["CKM"]', 'tracks = ["ckm"]', "tracks = 'ckm': it must be one of BH, CKM, MSK, eCKM"),
        ('reporting = "review"', 'reporting = "yes"', "reporting = 'yes': it must be one of automatic, review"),
        ('reporting = "review"', 'guide = "0.1"', "guide = '0.1': it must be one of 0.9.12"),
        ('payer_id = "00831"', 'payer_id = "1"\ntime_zone = "Mars/Base"', "time_zone 'Mars/Base' is not an IANA zone"),
        ('client_id = "example"', 'client_id = "e"\nauth_method = "none"', "auth_method = 'none': it must be one of"),
        ('participant = "ACCES12345"', 'participant = "ACCES1"', "client participant = 'ACCES1': it must be one of"),
        ('source = "system"', 'source = "http://127.0.0.1:1/c"', "refused unless every CMS base_url is loopback"),
        ("[store]", "[store", "not TOML"),
        ('reporting = "review"', 'repoting = "review"', "repoting, which is not known: did you mean reporting?"),
        ("[store]", "[stor]", "the key stor, which is not known: did you mean store?"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The sentence names the file, the key and what is right."""
    with pytest.raises(BadConfiguration) as refused:
        _load(tmp_path, GOOD.replace(old, new))
    assert said in str(refused.value)
    assert "access-facade.toml" in str(refused.value)


def test_the_sandbox_clock_needs_a_loopback_cms(tmp_path: Path) -> None:
    """A simulated clock and the real CMS never meet."""
    text = GOOD.replace('source = "system"', 'source = "http://127.0.0.1:8090/sandbox/clock"')
    with pytest.raises(BadConfiguration, match='set source = "system"'):
        _load(tmp_path, text)
    assert _load(tmp_path, text.replace("https://cms.example/fhir", "http://127.0.0.1:8090/fhir"))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """The remedy is `access-facade init`."""
    with pytest.raises(BadConfiguration, match="access-facade init"):
        load(tmp_path / "none.toml")


def test_an_unknown_participant_is_said_as_such(tmp_path: Path) -> None:
    """Asked for by id."""
    (tmp_path / "a.toml").write_text(GOOD)
    with pytest.raises(BadConfiguration, match="no \\[\\[participant\\]\\] with entity_id ACCES9"):
        load(tmp_path / "a.toml").participant("ACCES9")
