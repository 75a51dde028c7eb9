"""What the documents say is what the program does: commands, settings, addresses, links, decisions."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from server import settings
from server.app import create_app
from server.cli import app as cli_app
from server.domain.errors import BadConfiguration
from server.domain.submission import Operation
from server.settings import Author, Client, CmsEndpoint, Mllp, Participant, Polling, Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text("utf-8")
CONFIGURATION_PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")
LONGEST_README = 350  # lines: a newcomer's page
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))

# --- Commands -------------------------------------------------------------------------------------------------------


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        whole = f"{before}{name}"
        if hasattr(command, "commands"):
            yield from _commands(command, f"{whole} ")
        else:
            yield whole, command


COMMANDS = dict(_commands(typer.main.get_command(cli_app)))
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}


COMMON = {"--config", "--json", "--help"}  # explained once for all commands


def _options(name: str) -> list[set[str]]:
    """The options of a command; on and off, as `--worker/--no-worker`, are one."""
    found = [{option for option in (*one.opts, *one.secondary_opts) if "--" in option} for one in COMMANDS[name].params]
    return [option for option in found if option]


def _table(page: str, heading: str) -> list[list[str]]:
    """The rows of all tables under a heading, without their heads."""
    part = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n?)+", part, re.MULTILINE):
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()]
        rows += cells[2:]
    return rows


DESCRIBED = {
    match[1]: row[0]
    for row in _table(COMMANDS_PAGE, "Commands")
    if (match := re.match(r"`access-facade ([a-z]+(?: [a-z]+(?:-[a-z]+)*)?)", row[0]))
}


def test_readme_is_a_newcomers_page() -> None:
    """Long tables have pages of their own."""
    assert len(README.splitlines()) <= LONGEST_README


def test_the_commands_page_lists_exactly_the_commands_that_there_are() -> None:
    """A command that is not described is not found; one that is not there makes a liar of the page."""
    assert sorted(DESCRIBED) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"sandbox"}))  # the sandbox is a program of its own
def test_the_commands_page_names_the_options_that_there_are(name: str) -> None:
    """Every option, and none that is not there."""
    named = set(re.findall(r"--[a-z-]+[a-z]", DESCRIBED[name]))
    own = [option for option in _options(name) if not option & COMMON]
    assert [option for option in own if not option & named] == []
    assert named - set().union(*own) == set()


def test_the_commands_page_names_the_commands_that_speak_json() -> None:
    """One sentence lists those that take `--json`."""
    sentence = re.search(r"`--json` is taken by ([^.]*)\.", COMMANDS_PAGE)
    assert sentence is not None
    named = {" ".join(words.split()) for words in re.findall(r"`([^`]*)`", sentence[1])}
    assert named == {name for name in COMMANDS if {"--json"} in _options(name)}


TYPED = re.compile(r"(?:`|: |bin/|^ *)access-facade ([a-z]+)((?: [a-z-]+)?)(?=[ `.\"]|$)", re.MULTILINE)


def test_nothing_tells_to_run_a_command_that_is_not_there() -> None:
    """`access-facade x` in a document, a comment of the configuration or a message of the program can be typed."""
    told = {
        (str(path.relative_to(ROOT)), match[1] + (match[2] if match[1] in GROUPS else ""))
        for path in [
            *DOCUMENTS,
            ROOT / "docker-compose.yml",
            *(ROOT / "docker").iterdir(),
            *(ROOT / "server").rglob("*.py"),
            *(ROOT / "server" / "templates").iterdir(),
        ]
        if path.is_file()
        for match in TYPED.finditer(path.read_text("utf-8"))
    }
    assert told
    assert {(name, words) for name, words in told if words not in COMMANDS} == set()


def test_nothing_tells_to_make_what_the_makefile_can_not() -> None:
    """`make x` in a document can be typed."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = {
        (path.name, match[1])
        for path in DOCUMENTS
        for match in re.finditer(r"(?:`|^)make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert told
    assert {(name, target) for name, target in told if target not in targets} == set()


# --- Settings -------------------------------------------------------------------------------------------------------

BLOCKS: dict[str, type] = {
    "": Settings,
    "mllp": Mllp,
    "participant": Participant,
    "participant.author": Author,
    "participant.cms": CmsEndpoint,
    "participant.cms.polling": Polling,
    "client": Client,
}
INNER = {"participants", "clients", "mllp", "cms", "author", "polling", "path"}  # blocks of their own, and the file
ROOT_KEYS = {  # field of Settings -> key in the file
    "base_url": "base_url",
    **{name: f"{table}.{key}" for table, keys in settings.TABLES.items() for key, name in keys.items()},
}
FILLED_IN = {"clock.source": "system", **{f"participant.author.{name}": "" for name in ("npi", "family", "given")}}
WORDS = {"required": MISSING, "none": None, "the only one": MISSING}


def _keys() -> dict[str, Any]:
    """Every key of the file and its default, from the dataclasses."""
    found: dict[str, Any] = {}
    for block, kind in BLOCKS.items():
        for each in fields(kind):
            if each.name not in INNER and (block or each.name in ROOT_KEYS):
                key = f"{block}.{each.name}" if block else ROOT_KEYS[each.name]
                found[key] = FILLED_IN.get(key, each.default)
    return found


KEYS = _keys()
DOCUMENTED = {row[0].strip("`"): row[1] for row in _table(CONFIGURATION_PAGE, "Keys")}


def test_the_configuration_page_lists_exactly_the_settings_that_there_are() -> None:
    """Whoever configures finds each key, and none that does nothing."""
    assert set(DOCUMENTED) == set(KEYS)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_configuration_page_gives_the_default_that_holds(key: str) -> None:
    """The default on the page is that of the dataclass."""
    cell = DOCUMENTED[key]
    stated = WORDS[cell] if cell in WORDS else tomllib.loads(f"value = {cell.strip('`')}")["value"]
    assert (tuple(stated) if isinstance(stated, list) else stated) == KEYS[key]


FULL: dict[str, Any] = {
    "base_url": "https://facade.example",
    "store": {"url": "sqlite:///x.db", "key_file": "x.key"},
    "mllp": {"participant": "ACCES12345"},
    "participant": [
        {
            "entity_id": "ACCES12345", "name": "n", "payer_id": "p", "author": {},
            "cms": {"base_url": "https://cms.example/fhir", "token_url": "https://cms.example/t", "client_id": "c",
                    "polling": {}},
        }
    ],
    "client": [{"client_id": "c", "participant": "ACCES12345", "role": "ehr", "scope": "system/*.rs"}],
}  # fmt: skip
OTHER = {  # values that are not the default, where one can not be made from it
    "base_url": "https://other.example", "store.url": "sqlite:////other.db", "store.key_file": "other.key",
    "coordination.subscriber_hosts": ["pcp.example"], "participant.tracks": ["BH"],
    "participant.reporting": "automatic", "participant.guide": "0.9.13",
    "participant.time_zone": "America/Chicago", "participant.cms.auth_method": "private_key_jwt", "client.role": "pcp",
    "mllp.participant": "ACCES12345", "client.participant": "ACCES12345",
    "participant.entity_id": "ACCES12345", "participant.cms.auth_order": ["private_key_jwt"],
    "participant.cms.content_type": "application/fhir+json",
}  # fmt: skip
WHERE = {  # where a key's value is found in the loaded settings
    "": lambda loaded: loaded,
    "mllp": lambda loaded: loaded.mllp,
    "participant": lambda loaded: next(iter(loaded.participants.values())),
    "participant.author": lambda loaded: next(iter(loaded.participants.values())).author,
    "participant.cms": lambda loaded: next(iter(loaded.participants.values())).cms,
    "participant.cms.polling": lambda loaded: next(iter(loaded.participants.values())).cms.polling,
    "client": lambda loaded: next(iter(loaded.clients.values())),
}


def _other(key: str) -> Any:
    default = KEYS[key]
    if key in OTHER:
        return OTHER[key]
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return [number + 1 for number in default]
    return default + 1 if isinstance(default, int | float) else "other"


def _written(table: dict[str, Any], before: str = "") -> str:
    """TOML of plain values, tables, and arrays of tables."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        for inner in value if isinstance(value, list) and _is_table(value) else [value] * isinstance(value, dict):
            name = f"{before}{key}"
            lines += [f"[[{name}]]" if isinstance(value, list) else f"[{name}]", _written(inner, f"{name}.")]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _with(key: str, value: Any) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(FULL))
    *parents, last = key.split(".")
    table = copied
    for parent in parents:
        inner = table.setdefault(parent, {})
        table = inner[0] if isinstance(inner, list) else inner
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value
    return copied


@pytest.mark.parametrize("key", sorted(set(KEYS) - {"clock.source"}))
def test_every_documented_key_is_read_from_where_the_page_says(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is written as the page names it changes the setting of that name."""
    monkeypatch.setattr(settings, "access_versions", lambda: ("0.9.12", "0.9.13"))
    value = _other(key)
    file = tmp_path / "access-facade.toml"
    file.write_text(_written(_with(key, value)), "utf-8")
    loaded = settings.load(file)
    block, _, name = key.rpartition(".")
    if block not in BLOCKS:
        block, name = "", next(field for field, named in ROOT_KEYS.items() if named == key)
    found = getattr(WHERE[block](loaded), name)
    expected = tmp_path / value if isinstance(found, Path) else tuple(value) if isinstance(value, list) else value
    assert found == expected


@pytest.mark.parametrize("key", sorted(key for key in DOCUMENTED if DOCUMENTED[key] == "required"))
def test_a_key_called_required_is(key: str, tmp_path: Path) -> None:
    """Without it the file is refused, and the key is named."""
    file = tmp_path / "access-facade.toml"
    file.write_text(_written(_with(key, None)), "utf-8")
    with pytest.raises(BadConfiguration, match=key.rpartition(".")[2]):
        settings.load(file)


# --- Addresses ------------------------------------------------------------------------------------------------------


def _paths(tmp_path: Path) -> set[str]:
    file = tmp_path / "access-facade.toml"
    file.write_text(_written(FULL), "utf-8")
    routes = create_app(settings.load(file), work=False).routes
    paths = {str(getattr(route, "path", "")) for route in routes}
    operations = {path for path in paths if path.endswith("/{operation}")}
    named = {path.replace("{operation}", f"${name}") for path in operations for name in Operation}
    return {re.sub(r":\w+\}", "}", path) for path in (paths - operations) | named}


def test_readme_lists_every_address(tmp_path: Path) -> None:
    """Each route of the application stands in README's table of URLs."""
    listed = {
        match[1].partition("?")[0]
        for row in _table(README, "URLs")
        for match in re.finditer(r"`(?:GET|POST|PUT|DELETE|PATCH) ([^`]+)`", row[0])
    }
    assert _paths(tmp_path) - listed == set()


def test_readme_lists_no_address_that_is_not_there(tmp_path: Path) -> None:
    """And nothing else stands there."""
    listed = {
        match[1].partition("?")[0]
        for row in _table(README, "URLs")
        for match in re.finditer(r"`(?:GET|POST|PUT|DELETE|PATCH) ([^`]+)`", row[0])
    }
    assert listed - _paths(tmp_path) == set()


# --- Documents ------------------------------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Links to files of the repository, and to headings in them, resolve."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.name)
def test_every_decision_has_its_four_parts(decision: Path) -> None:
    """Context, Decision, Status, Consequences, in a file whose number is in its title."""
    text = decision.read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"Context", "Decision", "Status", "Consequences"} <= set(headings)
    assert re.match(r"\d{4}-[a-z0-9-]+\.md", decision.name)
    assert re.match(rf"# (?:ADR )?0*{int(decision.name[:4])}\b", text)


def test_decisions_are_numbered_without_a_twin() -> None:
    """Two decisions with one number can not be cited."""
    numbers = [path.name[:4] for path in DECISIONS]
    assert len(numbers) == len(set(numbers))


def test_operations_explain_every_kind_of_work_item() -> None:
    """Whatever `kind=` the server writes into the work list has its row in docs/operations.md."""
    written = {
        match[1]
        for path in (ROOT / "server").rglob("*.py")
        for match in re.finditer(r"\bkind(?:\"\:|=|, subject =) ?\"([a-z-]+)\"", path.read_text("utf-8"))
    }
    explained = set(
        re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "operations.md").read_text("utf-8"), re.MULTILINE)
    )
    assert written
    assert written - explained == set()


def test_operations_name_every_metric() -> None:
    """Each metric has its row, and none is made up."""
    source = (ROOT / "server" / "metrics.py").read_text("utf-8")
    declared = re.findall(r"(CounterMetricFamily|Gauge|HistogramMetricFamily)\(\s*\"(access_facade_[a-z_]+)\"", source)
    there = {name + ("_total" if kind == "CounterMetricFamily" else "") for kind, name in declared}
    named = set(re.findall(r"`(access_facade_[a-z_]+)`", (ROOT / "docs" / "operations.md").read_text("utf-8")))
    assert named == there


def test_changelog_has_an_unreleased_part() -> None:
    """Keep a Changelog: what is not released yet is written down already."""
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
