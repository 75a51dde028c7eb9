"""docker-compose.yml and docker/ agree with the commands, the settings and `init`. No container is started."""

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer.main
import yaml

from sandbox import __main__ as sandbox_main
from sandbox import settings as sandbox_settings
from server import settings
from server.cli import app as cli_app
from server.initialise import initialise
from server.store.mongodb import transactions
from server.store.mongodb.address import read_address

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docker"))
mongodb_secrets = importlib.import_module("mongodb_secrets")
processes = importlib.import_module("processes")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
MONGODB_DOCKERFILE = (ROOT / "docker" / "mongodb.Dockerfile").read_text("utf-8")
CONFIG = ROOT / "docker" / "access-facade.toml"
SANDBOX_CONFIG = ROOT / "docker" / "sandbox.toml"
FACADE = ("web", "web2", "worker", "worker2")
DATABASE = ("mongodb", "mongodb-setup")
NAMES = (*FACADE, "sandbox")


def test_there_are_exactly_these_services() -> None:
    """Two web processes, two workers, the stand-in CMS, MongoDB and what sets it up."""
    assert set(SERVICES) == {*NAMES, *DATABASE}


@pytest.mark.parametrize("name", FACADE)
def test_command_is_one_that_the_command_line_takes(name: str) -> None:
    """Its options parse, and the configuration is the one that is mounted."""
    command, *arguments = SERVICES[name]["command"]
    group: Any = typer.main.get_command(cli_app)
    parsed = group.commands[command].make_context(command, arguments).params
    assert str(parsed["config"]) in {each["target"] for each in SERVICES[name]["configs"]}


def test_web_leaves_the_work_to_the_worker() -> None:
    """Each can be stopped alone; the second of a kind is as the first but for its ports."""
    assert SERVICES["web"]["command"][:2] == ["serve", "--no-worker"]
    assert SERVICES["worker"]["command"][0] == "worker"
    assert SERVICES["worker2"] == SERVICES["worker"]
    assert {**SERVICES["web2"], "ports": None} == {**SERVICES["web"], "ports": None}
    ports = [str(port).split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


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
    for name in ("web", "web2"):
        assert _published(name) == {loaded.port, loaded.mllp.port}
    assert {loaded.host, loaded.mllp.host} == {"0.0.0.0"}


def test_store_is_the_database_with_its_user_and_password_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL names the service, the replica set that it starts, and a password file that is mounted."""
    url = settings.load(CONFIG).store_url
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    monkeypatch.setattr(Path, "read_text", lambda *_: "secret")
    address = read_address(url)
    assert (parts.username, parts.hostname, address.database) == ("facade", "mongodb", "access_facade")
    assert f"--replSet={options['replicaSet']}" in SERVICES["mongodb"]["command"]
    assert options["authSource"] == "admin"
    assert options["passwordFile"] == "/run/secrets/mongodb-facade.password"


def test_the_database_sets_itself_up() -> None:
    """The script makes the user and the replica set that the URL names; the others wait until it is done."""
    script = (ROOT / "docker" / "mongodb-setup.js").read_text("utf-8")
    assert 'user: "facade"' in script
    assert 'db: "access_facade"' in script
    assert '_id: "rs0"' in script
    assert 'host: "mongodb:27017"' in script
    assert SERVICES["mongodb-setup"]["network_mode"] == "service:mongodb"
    assert set(re.findall(r"secret\(\"([\w.-]+)\"\)", script)) == set(SERVICES["mongodb-setup"]["secrets"])
    for name in FACADE:
        assert SERVICES[name]["depends_on"] == {"mongodb-setup": {"condition": "service_completed_successfully"}}


def test_the_database_is_not_open_to_others() -> None:
    """It asks who is there, and publishes no port."""
    command = SERVICES["mongodb"]["command"]
    assert "--keyFile=/run/secrets/mongodb.keyfile" in command  # which turns authentication on
    assert "ports" not in SERVICES["mongodb"]
    assert SERVICES["mongodb"]["secrets"] == ["mongodb.keyfile"]


def test_a_transaction_left_open_bars_nobody_for_long() -> None:
    """The server ends it before those who wait for its rows give up (docs/scaling.md)."""
    name = "--setParameter=transactionLifetimeLimitSeconds="
    (seconds,) = [each.removeprefix(name) for each in SERVICES["mongodb"]["command"] if each.startswith(name)]
    assert int(seconds) < transactions.SECONDS
    assert f"{name}{seconds}" in (ROOT / "docker" / "processes.py").read_text("utf-8")


def test_what_is_written_survives_the_containers() -> None:
    """Data are in named volumes."""
    folder = next(each.partition("=")[2] for each in SERVICES["mongodb"]["command"] if each.startswith("--dbpath="))
    assert SERVICES["mongodb"]["volumes"] == [f"mongodb:{folder}"]
    assert set(COMPOSE["volumes"]) == {"mongodb", "sandbox"}
    assert sandbox_settings.load(SANDBOX_CONFIG).data == Path("/data/sandbox.db")
    assert "sandbox:/data" in SERVICES["sandbox"]["volumes"]


def _secrets_named(path: Path) -> set[str]:
    values: list[str] = re.findall(r'/run/secrets/([^"&]+)"', path.read_text("utf-8"))
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
    mongodb_secrets.make(tmp_path / "compose")
    paths = list((tmp_path / "compose").iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths if path.name in mongodb_secrets.NAMES)
    made = {path.name for path in paths}
    files = {name: each["file"] for name, each in COMPOSE["secrets"].items()}
    assert set(files) <= made
    assert {path.rpartition("/")[0] for path in files.values()} == {"run/compose"}
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert "init --demo /out/compose" in text
    assert "docker/mongodb_secrets.py /src/run/compose" in text
    assert "/run/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_sandbox_knows_the_participant_and_its_client() -> None:
    """Both configurations name the same client of CMS."""
    cms = settings.load(CONFIG).participant("ACCES12345").cms
    client = sandbox_settings.load(SANDBOX_CONFIG).clients[cms.client_id]
    assert client.entity_id == "ACCES12345"


def test_the_stand_in_is_asked_without_more_ado(tmp_path: Path) -> None:
    """A first `$align` goes through as it does with `init --demo`: no Consent has to be on record before."""
    demo = settings.load(initialise(tmp_path / "demo", demo=True).config).participant("ACCES12345")
    ours = settings.load(CONFIG).participant("ACCES12345")
    assert (ours.disclosure_required, ours.switch_consent_required) == (False, False)
    assert (ours.disclosure_required, ours.switch_consent_required) == (
        demo.disclosure_required, demo.switch_consent_required,
    )  # fmt: skip


def test_mounted_configurations_are_there() -> None:
    """Each file that is mounted is committed."""
    for each in COMPOSE["configs"].values():
        assert (ROOT / each["file"]).is_file()


@pytest.mark.parametrize("name", [*NAMES, *DATABASE])
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
    assert {SERVICES[name]["image"] for name in NAMES} == {f"access-facade:{project['version']}"}
    base = re.findall(r"^FROM mongo:(\d+\.\d+\.\d+)$", MONGODB_DOCKERFILE, re.MULTILINE)
    assert {SERVICES[name]["image"] for name in DATABASE} == {f"access-facade-mongodb:{base[0]}"}


def test_image_installs_from_the_locked_requirements() -> None:
    """With hashes, and the project itself without looking for anything."""
    assert "--require-hashes -r requirements.txt" in DOCKERFILE
    assert re.search(r"pip install .*--no-deps --no-build-isolation \.", DOCKERFILE)
    assert "hatchling==" in (ROOT / "requirements.txt").read_text("utf-8")


def test_image_runs_as_a_user() -> None:
    """The last USER of each Dockerfile is not root."""
    for text in (DOCKERFILE, MONGODB_DOCKERFILE):
        assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")


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


def test_the_same_processes_start_without_containers(tmp_path: Path) -> None:
    """docker/processes.py starts each service with settings that load, on the ports that are published."""
    initialise(tmp_path / "compose", demo=True)
    planned = {each.name: each for each in processes.plan(COMPOSE, tmp_path, "mongodb://127.0.0.1/x?replicaSet=rs0")}
    assert set(planned) == set(NAMES)
    assert next(iter(planned)) == "sandbox"
    group: Any = typer.main.get_command(cli_app)
    ports = []
    for name in FACADE:
        command, *arguments = planned[name].command[3:]
        loaded = settings.load(group.commands[command].make_context(command, arguments).params["config"])
        assert loaded.store_url == "mongodb://127.0.0.1/x?replicaSet=rs0"
        assert loaded.key_file.is_file()
        assert loaded.mllp is not None
        ports += [loaded.port, loaded.mllp.port] if command == "serve" else []
        cms = loaded.participant("ACCES12345").cms
        assert cms.base_url == "http://127.0.0.1:8090/fhir"
        assert cms.private_key_file is not None
        assert cms.private_key_file.is_file()
    assert ports == [8080, 2575, 8081, 2576]
    assert [planned[name].ready for name in ("web", "web2", "worker")] == [
        "http://127.0.0.1:8080/readyz", "http://127.0.0.1:8081/readyz", None,
    ]  # fmt: skip
    assert all(process.again for process in planned.values())
    assert "127.0.0.1" in planned["sandbox"].command
