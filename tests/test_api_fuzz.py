"""Whatever a client sends, no door answers with a server error: generated from our own OpenAPI, and from valid input
that is then damaged."""

import base64
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, SerializationContext
from schemathesis.checks import not_a_server_error

from capability import openapi
from profiles import fhir_json
from server import settings as settings_module
from server.app import create_app
from server.demo import messages
from server.demo.story import VISITS
from server.initialise import initialise

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))  # for each operation
NOW = datetime(2026, 8, 20, 14, 0, tzinfo=UTC)
OPERATION = "/fhir/access/Patient/${}?entityId=ACCES12345"
VALID: dict[str, tuple[str, bytes, str]] = {
    "eligibility": (OPERATION.format("check-eligibility"), messages.operation("check-eligibility", "CKM"), "json"),
    "alignment": (OPERATION.format("align"), messages.operation("align", "CKM"), "json"),
    "bundle": ("/fhir", messages.pressures(VISITS[0][1], NOW), "fhir+json"),
    "labs": ("/hl7v2", messages.labs(VISITS[0][1], NOW, "LAB0001"), "hl7-v2"),
    "document": ("/cda", messages.clinic(VISITS[0][1], NOW, "NOTE0001"), "cda+xml"),
    "conversion": ("/fhir/$convert-data", messages.labs(VISITS[0][1], NOW, "LAB0002"), "hl7-v2"),
    "subscription": ("/fhir/Subscription", messages.subscription("http://f.test", "http://127.0.0.1:1"), "fhir+json"),
}


@schemathesis.serializer("application/hl7-v2", "x-application/hl7-v2+er7")
def er7(_: SerializationContext, value: object) -> bytes:
    """What is generated for an HL7 v2 body, as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


schema = schemathesis.openapi.from_dict(json.loads(fhir_json.dump(openapi.openapi("http://facade.test"))))
gently = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Facade:
    """The doors on a loopback socket, and tokens for them."""

    url: str
    tokens: tuple[str | None, ...]

    def headers(self, path: str) -> dict[str, str]:
        """An EHR's, a clinician's or nobody's, by the address: the same for the same request in each run."""
        token = self.tokens[zlib.crc32(path.encode("utf-8", "surrogatepass")) % len(self.tokens)]
        return {"Authorization": f"Bearer {token}"} if token else {}


@pytest.fixture(scope="module")
def facade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facade]:
    """One installation without a worker: what is sent is taken or refused, and goes nowhere."""
    made = initialise(tmp_path_factory.mktemp("fuzz") / "demo", demo=True)
    loaded = replace(settings_module.load(made.config), mllp=None, clock_url=None)
    server = uvicorn.Server(uvicorn.Config(create_app(loaded, work=False), log_level="critical", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        secrets = {client.client_id: client.client_secret for client in made.clients}
        yield Facade(url, (*(_token(url, name, secrets[name]) for name in ("ehr-1", "ehr-1", "pcp-1")), None))
        server.should_exit = True
        thread.join(10)


def _token(url: str, name: str, secret: str) -> str:
    pair = base64.b64encode(f"{name}:{secret}".encode()).decode()
    answer = httpx2.post(
        f"{url}/auth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": f"Basic {pair}"}
    )
    return str(answer.json()["access_token"])


@schema.parametrize()
@settings(gently, max_examples=EXAMPLES)
def test_no_generated_request_is_a_server_error(case: Case[Any], facade: Facade) -> None:
    """Each operation of /openapi.json, with values that its schema allows and that it does not."""
    case.call_and_validate(
        base_url=facade.url, headers=facade.headers(case.formatted_path), checks=[not_a_server_error]
    )


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """A valid body with a few bytes cut out, repeated, or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(body) - 1, 0)))
        end = start + draw(st.integers(0, 12))
        new = draw(st.one_of(st.binary(max_size=6), st.sampled_from(NASTY), st.just(body[start:end] * 2)))
        body = body[:start] + new + body[end:]
    return body


NASTY = (
    b'"',
    b"}",
    b"null",
    b"1e999",
    b"-0",
    b"\xff\xfe",
    b"\\u0000",
    b"|",
    b"^~",
    b"\r",
    b"<",
    b"&amp;",
    b"[]",
    b"{}",
)


@pytest.mark.parametrize("name", VALID)
@settings(gently, max_examples=2 * EXAMPLES)
@given(data=st.data())
def test_no_damaged_input_is_a_server_error(data: st.DataObject, facade: Facade, name: str) -> None:
    """Real messages with a few bytes broken: taken or refused, and said why."""
    path, body, media_type = VALID[name]
    broken = data.draw(damaged(body))
    headers = {"Authorization": f"Bearer {facade.tokens[0]}", "Content-Type": f"application/{media_type}"}
    answer = httpx2.post(facade.url + path, content=broken, headers=headers)
    assert answer.status_code < 500, answer.text
    assert answer.content or answer.status_code == 202


@pytest.mark.parametrize("name", ["%0E", "a%0D%0AX-Forged:1", "%E4%B8%AD"])
def test_a_type_that_no_header_can_name_is_refused(facade: Facade, name: str) -> None:
    """A clinician's token may not create it: 403 or 404, whatever the type is called."""
    headers = {"Authorization": f"Bearer {facade.tokens[2]}", "Content-Type": "application/fhir+json"}
    answer = httpx2.post(f"{facade.url}/fhir/{name}/$validate", content=b"{}", headers=headers)
    assert answer.status_code in (403, 404)
    assert "x-forged" not in answer.headers


@pytest.mark.parametrize("name", ["\\u000e", "\u4e2d"])
def test_a_bundle_with_such_a_type_is_refused(facade: Facade, name: str) -> None:
    """The same inside a Bundle."""
    entry = f'{{"resource":{{"resourceType":"{name}"}},"request":{{"method":"POST","url":"Observation"}}}}'
    bundle = f'{{"resourceType":"Bundle","type":"batch","entry":[{entry}]}}'.encode()
    headers = {"Authorization": f"Bearer {facade.tokens[2]}", "Content-Type": "application/fhir+json"}
    answer = httpx2.post(f"{facade.url}/fhir", content=bundle, headers=headers)
    assert 400 <= answer.status_code < 500
