"""docker-compose.yml and docker/ agree with the commands, the settings and `init`. No container is started."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from sandbox import __main__ as sandbox_main
from sandbox import settings as sandbox_settings
from server import settings
from server.cli import app as cli_app
from server.initialise import initialise

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
CONFIG = ROOT / "docker" / "access-facade.toml"
SANDBOX_CONFIG = ROOT / "docker" / "sandbox.toml"
FACADE = ("web", "worker")
NAMES = ("web", "worker", "sandbox")


def test_there_are_exactly_these_services() -> None:
    """Doors, worker, stand-in CMS; the second store engine is not there yet."""
    assert set(SERVICES) == set(NAMES)


@pytest.mark.parametrize("name", FACADE)
def test_command_is_one_that_the_command_line_takes(name: str) -> None:
    """Its options parse, and the configuration is the one that is mounted."""
    command, *arguments = SERVICES[name]["command"]
    group: Any = typer.main.get_command(cli_app)
    parsed = group.commands[command].make_context(command, arguments).params
    assert str(parsed["config"]) in {each["target"] for each in SERVICES[name]["configs"]}


def test_web_leaves_the_work_to_the_worker() -> None:
    """Each can be stopped alone."""
    assert SERVICES["web"]["command"][:2] == ["serve", "--no-worker"]
    assert SERVICES["worker"]["command"][0] == "worker"


def test_sandbox_listens_where_its_port_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own command line takes the options, and the facade's CMS URLs name it."""
    taken: dict[str, Any] = {}
    command, *arguments = SERVICES["sandbox"]["command"]
    monkeypatch.setattr(sandbox_main, "serve", lambda **given: taken.update(given))
    monkeypatch.setattr("sys.argv", ["sandbox", *arguments])
    assert command == "sandbox"
    assert sandbox_main.main() == 0
    assert taken["host"] == "0.0.0.0"
    assert str(taken["config"]) in {each["target"] for each in SERVICES["sandbox"]["configs"]}
    assert _published("sandbox") == {taken["port"]}
    cms = settings.load(CONFIG).participant("ACCES12345").cms
    assert cms.base_url == f"http://sandbox:{taken['port']}/fhir"
    assert cms.token_url == f"http://sandbox:{taken['port']}/oauth2/token"


def _published(name: str) -> set[int]:
    """Container ports that are published, all of them on loopback only."""
    ports = [str(each).split(":") for each in SERVICES[name].get("ports", [])]
    assert all(len(parts) == 3 and parts[0] == "127.0.0.1" for parts in ports)
    return {int(parts[2]) for parts in ports}


def test_published_ports_are_those_that_are_listened_on() -> None:
    """HTTP and MLLP, on all addresses of the container."""
    loaded = settings.load(CONFIG)
    assert loaded.mllp is not None
    assert _published("web") == {loaded.port, loaded.mllp.port}
    assert {loaded.host, loaded.mllp.host} == {"0.0.0.0"}


def test_store_is_in_the_named_volume_that_both_share() -> None:
    """What is written survives the containers."""
    assert settings.load(CONFIG).store_url.startswith("sqlite:////data/")
    for name in FACADE:
        assert "data:/data" in SERVICES[name]["volumes"]
    assert "data" in COMPOSE["volumes"]
    assert sandbox_settings.load(SANDBOX_CONFIG).data == Path("/data/sandbox.db")
    assert "sandbox:/data" in SERVICES["sandbox"]["volumes"]


def _secrets_named(path: Path) -> set[str]:
    values: list[str] = re.findall(r'"/run/secrets/([^"]+)"', path.read_text("utf-8"))
    return set(values)


@pytest.mark.parametrize("name", FACADE)
def test_facade_gets_the_secrets_that_its_configuration_names(name: str) -> None:
    """And the token key, which stands beside the master key; nothing else."""
    assert set(SERVICES[name]["secrets"]) == _secrets_named(CONFIG) | {"token-key.pem"}
    assert settings.load(CONFIG).key_file == Path("/run/secrets/master.key")


def test_sandbox_gets_public_keys_only() -> None:
    """A stand-in needs no secret of the facade."""
    assert set(SERVICES["sandbox"]["secrets"]) == _secrets_named(SANDBOX_CONFIG) == {"cms-ACCES12345.jwks.json"}


def test_secrets_are_the_files_that_init_makes(tmp_path: Path) -> None:
    """The steps at the top of docker-compose.yml make every file, in the folder where it is looked for."""
    initialise(tmp_path / "compose", demo=True)
    made = {path.name for path in (tmp_path / "compose").iterdir()}
    files = {name: each["file"] for name, each in COMPOSE["secrets"].items()}
    assert set(files) <= made
    assert {path.rpartition("/")[0] for path in files.values()} == {"run/compose"}
    assert "init --demo /out/compose" in (ROOT / "docker-compose.yml").read_text("utf-8")
    assert "/run/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_sandbox_knows_the_participant_and_its_client() -> None:
    """Both configurations name the same client of CMS."""
    cms = settings.load(CONFIG).participant("ACCES12345").cms
    client = sandbox_settings.load(SANDBOX_CONFIG).clients[cms.client_id]
    assert client.entity_id == "ACCES12345"


def test_mounted_configurations_are_there() -> None:
    """Each file that is mounted is committed."""
    for each in COMPOSE["configs"].values():
        assert (ROOT / each["file"]).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_container_may_do_little(name: str) -> None:
    """Not root, nothing writable but its volume and /tmp, no capability, no secret in the environment."""
    service = SERVICES[name]
    assert service["user"] not in ("", "0", "root", 0)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "environment" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", NAMES)
def test_container_says_whether_it_is_healthy(name: str) -> None:
    """Each service has a check; those over HTTP ask a port that the service listens on."""
    test = SERVICES[name]["healthcheck"]["test"]
    asked = re.findall(r"http://127\.0\.0\.1:(\d+)(/\S*?)'", " ".join(test))
    assert all(int(port) in _published(name) for port, _ in asked)
    assert asked or "access-facade due" in " ".join(test)


def test_images_are_pinned_by_version() -> None:
    """Neither `latest` nor nothing: Python's minor version is one that the project supports."""
    versions = re.findall(r"^FROM python:(3\.\d+)-slim-\w+", DOCKERFILE, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert len(versions) == len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)) > 0
    assert set(versions) <= {"3.11", "3.12", "3.13"}
    assert {service["image"] for service in SERVICES.values()} == {f"access-facade:{project['version']}"}


def test_image_installs_from_the_locked_requirements() -> None:
    """With hashes, and the project itself without looking for anything."""
    assert "--require-hashes -r requirements.txt" in DOCKERFILE
    assert re.search(r"pip install .*--no-deps --no-build-isolation \.", DOCKERFILE)
    assert "hatchling==" in (ROOT / "requirements.txt").read_text("utf-8")


def test_image_runs_as_a_user() -> None:
    """The last USER of the Dockerfile is not root."""
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] not in ("root", "0")


def test_image_holds_the_five_packages_and_no_more() -> None:
    """What is copied, what is let through to the build, and what the wheel holds are the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    ignore = (ROOT / "docker" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert copied == let_through == packages | {"requirements.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)
