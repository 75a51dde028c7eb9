"""The OpenAPI 3.1 document of all HTTP routes, made of routes.toml and features.toml."""

import json
import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from capability.features import features
from capability.smart import smart_configuration
from capability.statement import software_version
from profiles import fhir_json

FHIR_JSON = "application/fhir+json"
EXAMPLE_IDS = {"type": "Observation", "id": "example-observation", "vid": "1", "entity_id": "ACCES12345"}
ID_PATTERN = "^[A-Za-z0-9.-]{1,64}$"  # FHIR R4, data type id
REQUEST_ID = {"description": "The id of the request: the caller's, or a new one.", "schema": {"type": "string"}}

Json = dict[str, Any]


def _content(media_type: str, schema: str) -> Json:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


STATUS_URL = {"description": "The absolute status URL.", "schema": {"type": "string", "format": "uri"}}

# kind of answer -> response object, without its headers
ANSWERS: dict[str, Json] = {
    "resource": {"description": "A FHIR resource.", "content": _content(FHIR_JSON, "Resource")},
    "outcome": {"description": "What was found or done.", "content": _content(FHIR_JSON, "OperationOutcome")},
    "json": {"description": "JSON.", "content": {"application/json": {"schema": {"type": "object"}}}},
    "token": {"description": "The access token.", "content": _content("application/json", "Token")},
    "oauthError": {"description": "No token (RFC 6749).", "content": _content("application/json", "OAuthError")},
    "accepted": {"description": "Accepted for CMS; no body.", "headers": {"Content-Location": STATUS_URL}},
    "pending": {"description": "CMS has not decided yet; no body."},
    "ack": {"description": "The acknowledgement.", "content": {"application/hl7-v2": {"schema": {"type": "string"}}}},
    "text": {"description": "Plain text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
}


def openapi(base_url: str) -> Json:
    """The document. `base_url` is the server's, without `/fhir`."""
    data = tomllib.loads(_text("routes.toml"))
    paths: Json = {}
    for row in data["route"]:
        paths.setdefault(row["path"], {})[row["method"]] = _operation(row, data)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "access-facade",
            "version": software_version(),
            "summary": "The FHIR facade for organizations in Medicare's ACCESS Model",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url}],
        "security": [{"smart": []}],
        "paths": paths,
        "components": {"securitySchemes": _security(base_url), "schemas": _schemas()},
    }


def _operation(row: Json, data: Json) -> Json:
    made: Json = {
        "operationId": row["id"],
        "tags": [row["tag"]],
        "summary": row["summary"],
        "parameters": [*_path_parameters(row), *_query_parameters(row, data), *_headers(row, data)],
        "responses": _responses(row),
    }
    if row.get("public"):
        made["security"] = []
    if "body" in row:
        made["requestBody"] = {"required": True, "content": _body(row, data)}
    return made


def _path_parameters(row: Json) -> list[Json]:
    return [_path_parameter(name, row) for name in re.findall(r"\{(\w+)\}", row["path"])]


def _path_parameter(name: str, row: Json) -> Json:
    schema: Json = {"type": "string", "pattern": ID_PATTERN}
    if name == "type":
        known = features().resources.values()
        schema = {"type": "string", "enum": [one.type for one in known if row["type"] in one.interactions]}
    if name == "vid":
        schema = {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": EXAMPLE_IDS[name]}


def _query_parameters(row: Json, data: Json) -> list[Json]:
    named = [_parameter(name, "query", data["query"][name]) for name in row.get("query", ()) if name != "search"]
    searched = _search_schema()["properties"].items() if "search" in row.get("query", ()) else ()
    return named + [{"name": name, "in": "query", "schema": schema} for name, schema in searched]


def _headers(row: Json, data: Json) -> list[Json]:
    return [_parameter(name, "header", data["header"][name]) for name in row.get("headers", ())]


def _parameter(name: str, place: str, facts: Json) -> Json:
    schema = {"type": "string", **({"pattern": facts["pattern"]} if "pattern" in facts else {})}
    made: Json = {"name": name, "in": place, "required": facts.get("required", False), "schema": schema}
    return {**made, **{key: facts[key] for key in ("description", "example") if key in facts}}


def _body(row: Json, data: Json) -> Json:
    first = _media(row["body"], row.get("schema"))
    if "example" in row:
        first["example"] = _example(row["example"])
    content = dict.fromkeys(data["body"][row["body"]], first)
    for kind in row.get("also", ()):
        content |= dict.fromkeys(data["body"][kind], _media(kind, None))
    return content


def _media(kind: str, schema: str | None) -> Json:
    name = schema or ("Resource" if kind == "fhir" else None)
    return {"schema": {"$ref": f"#/components/schemas/{name}"} if name else {"type": "string"}}


def _responses(row: Json) -> Json:
    made: Json = {}
    for status, kind in sorted(row["answers"].items()):
        answer = ANSWERS[kind]
        made[status] = {**answer, "headers": {"X-Request-Id": REQUEST_ID, **answer.get("headers", {})}}
    content = _content(FHIR_JSON, "OperationOutcome")
    made["default"] = {"description": "Why not, and what to do.", "content": content}
    return made


def _security(base_url: str) -> Json:
    smart = smart_configuration(base_url)
    scopes = dict.fromkeys(smart["scopes_supported"], "")
    flow = {"tokenUrl": smart["token_endpoint"], "scopes": scopes}
    return {"smart": {"type": "oauth2", "flows": {"clientCredentials": flow}}}


def _schemas() -> Json:
    schemas: Json = json.loads(_text("schemas.json"))
    return {**schemas, "SearchForm": _search_schema()}


def _search_schema() -> Json:
    parameters = {name: kind for one in features().resources.values() for name, kind in one.search.items()}
    number = {"type": "integer", "minimum": 1, "maximum": 500}
    date = {"type": "string", "pattern": "^(eq|ne|gt|lt|ge|le|sa|eb)?[12][0-9]{3}(-(0[1-9]|1[0-2]))?$"}
    by_kind: Json = {"number": number, "date": date}
    properties = {name: by_kind.get(kind, {"type": "string", "maxLength": 100}) for name, kind in parameters.items()}
    return {"type": "object", "properties": properties}


@cache
def _example(name: str) -> Any:
    text = _text(f"examples/{name}")
    if name.endswith(".json"):
        return fhir_json.parse(text.encode())
    return text.replace("\n", "\r") if name.endswith(".hl7") else text


def _text(name: str) -> str:
    return files("capability").joinpath(*name.split("/")).read_text(encoding="utf-8")
