"""The shape of the tree: where packages come from, how large things are, what no committed file may hold."""

import ast
import importlib
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("server", "mappers", "profiles", "capability", "sandbox")
BANNED = {"utils", "helpers", "common", "misc", "manager"}
SKIPPED = {"run", "dist", "build", "node_modules", "__pycache__"}  # made by tools; git ignores them
MAX_LINES, MAX_FUNCTION = 400, 60


def _files(*suffixes: str) -> Iterator[Path]:
    """The text files of the repository, as far as git would take them."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") or name == ".ci"]
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith(".egg-info")]
        for name in names:
            path = Path(folder, name)
            if not suffixes or path.suffix in suffixes:
                yield path


def _sources() -> list[Path]:
    """Our own modules, tests and benches left out."""
    return [path for path in _files(".py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def _texts() -> Iterator[tuple[Path, str]]:
    for path in _files():
        data = path.read_bytes()
        if b"\x00" not in data and path != Path(__file__).resolve():
            yield path, data.decode("utf-8", "replace")


@pytest.mark.parametrize("name", PACKAGES)
def test_package_loads_from_this_repository(name: str) -> None:
    """The names are generic: another distribution's package must not be taken for ours."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


def test_no_module_is_named_for_leftovers() -> None:
    """A module called utils, helpers, common, misc or manager says nothing of what is in it."""
    named = [path for path in _files(".py") if {path.stem, path.parent.name} & BANNED]
    assert named == []


def test_modules_are_at_most_400_lines() -> None:
    """A longer module has two subjects. Tests and data are left out."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in _sources()}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_functions_are_at_most_60_lines() -> None:
    """A longer function can not be seen at once. Tests are left out: some hold their data."""
    too_long = []
    for path in [*_sources(), *(ROOT / "bench").glob("*.py")]:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                too_long += (
                    [f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {size}"] if size > MAX_FUNCTION else []
                )
    assert too_long == []


REGISTRIES = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|yarnpkg\.com|conda\.anaconda\.org|proxy\.golang\.org"
    r"|crates\.io/api|(?:artifactory|nexus|devpi)[\w.-]*\.[a-z]{2,})", re.IGNORECASE
)  # fmt: skip


def test_no_file_names_a_registry() -> None:
    """Where packages come from is the machine's business."""
    assert [str(path.relative_to(ROOT)) for path, text in _texts() if REGISTRIES.search(text)] == []


MACHINE_PATHS = re.compile(r"(?<![\w.:/$~-])/(?:work|root|home|Users)/[\w.]")


def test_no_file_names_a_path_of_a_machine() -> None:
    """A path that exists on one machine only makes everything that uses it fail on the next."""
    assert [str(path.relative_to(ROOT)) for path, text in _texts() if MACHINE_PATHS.search(text)] == []


def _requirements(name: str) -> list[str]:
    """Each requirement with its hashes, as one line."""
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    """A requirement without a version or a hash is whatever the registry says today."""
    lines = _requirements(name)
    assert lines
    pinned = re.compile(r"[A-Za-z0-9._-]+(?:\[[a-z,0-9._-]+\])?==\S+(?: ;[^#]*?)?(?:\s+--hash=sha256:[0-9a-f]{64})+")
    assert [line[:60] for line in lines if not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_hold_no_url(name: str) -> None:
    """Neither an index nor a direct reference."""
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    assert re.search(r"^\s*(?:-i\b|-f\b|--index|--extra-index|--find-links|--trusted-host)", text, re.MULTILINE) is None


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_it_proves(path: Path) -> None:
    """Each test function has a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    silent = [node.name for node in tests if node.name.startswith("test_") and ast.get_docstring(node) is None]
    assert silent == []
