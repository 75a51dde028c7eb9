"""The OpenAPI document names every route of the application, and its examples are good."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from capability.features import features
from capability.openapi import openapi
from profiles import fhir_json
from profiles.validate import validate

BASE = "http://127.0.0.1:8080"
OPERATIONS = "/fhir/access/Patient/{operation}"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document, as a client reads it."""
    made: dict[str, Any] = json.loads(fhir_json.dump(openapi(BASE)))
    return made


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    """A version, a server, and a scheme that all but the public routes need."""
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": BASE}]
    assert document["security"] == [{"smart": []}]
    flow = document["components"]["securitySchemes"]["smart"]["flows"]["clientCredentials"]
    assert flow["tokenUrl"] == f"{BASE}/auth/token"


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    """No schema is named that is not there."""
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    """Generators make function names of them."""
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))


def test_public_routes_are_those_of_the_gate(document: dict[str, Any]) -> None:
    """What the document calls public, the gate lets through, and nothing else."""
    from server.auth import is_public

    for path, operations in document["paths"].items():
        public = [one.get("security") == [] for one in operations.values()]
        assert public == [is_public(path.replace("{entity_id}", "ACCES12345"))] * len(public), path


def test_the_routes_are_those_of_the_application(document: dict[str, Any], tmp_path: Path) -> None:
    """Every route is documented, and every documented route exists."""
    from server.app import create_app
    from server.initialise import initialise
    from server.settings import load

    app = create_app(load(initialise(tmp_path, demo=True).config), work=False)
    real = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, Route) and not route.path.startswith("/console")
        for method in (route.methods or set()) - {"HEAD"}
    }
    said = {(path, method) for path, operations in document["paths"].items() for method in operations}
    by_name = {(path, method) for path, method in said if "/Patient/$" in path and method == "post"}
    assert said - by_name | {(OPERATIONS, "post")} == real


@pytest.mark.parametrize("name", ["check-eligibility", "align", "unalign", "report-data", "observation", "transaction"])
def test_the_examples_are_valid(name: str) -> None:
    """What a reader copies passes our own checks."""
    text = Path(str(_folder())).joinpath(f"{name}.json").read_bytes()
    assert validate(fhir_json.parse(text)) == []


def _folder() -> Any:
    from importlib.resources import files

    return files("capability").joinpath("examples")


def test_path_types_are_those_that_allow_the_interaction(document: dict[str, Any]) -> None:
    """POST names the types that can be created, GET those that can be searched."""
    (parameter,) = document["paths"]["/fhir/{type}"]["post"]["parameters"][:1]
    creatable = [row.type for row in features().resources.values() if "create" in row.interactions]
    assert parameter["schema"]["enum"] == creatable
    assert "Provenance" not in creatable


def test_errors_are_operation_outcomes(document: dict[str, Any]) -> None:
    """Every operation says so."""
    for path in document["paths"].values():
        for operation in path.values():
            assert "OperationOutcome" in json.dumps(operation["responses"]["default"])
