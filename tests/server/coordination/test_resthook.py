"""One POST goes to the address that was checked, by the name that was asked for, and nowhere else."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.coordination.channel import Answer, Outgoing, Verdict
from server.coordination.resthook import KEPT_BYTES, send, verdict


def _outgoing(endpoint: str, **changes: Any) -> Outgoing:
    made = Outgoing(
        endpoint=endpoint,
        headers=(("Authorization", "Bearer s"),),
        content_type="application/fhir+json",
        body=b"{}",
        timeout_seconds=5.0,
    )
    return replace(made, **changes)


def _with_hosts(world: Any, *hosts: str, http: Any = None) -> Any:
    settings = replace(world.context.settings, subscriber_hosts=hosts)
    return replace(world.context, settings=settings, http=http or world.context.http)


def _resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """The name server says these, whatever it is asked."""

    async def answer(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)


def test_verdicts() -> None:
    """What each status means for a delivery."""
    assert {verdict(status) for status in (200, 201, 202, 204, 299)} == {Verdict.DELIVERED}
    assert {verdict(status) for status in (300, 301, 307, 400, 401, 403, 404, 422)} == {Verdict.REFUSED}
    assert {verdict(status) for status in (408, 425, 429, 500, 502, 503, 504)} == {Verdict.AGAIN}
    assert verdict(410) is Verdict.GONE


async def test_a_redirect_is_not_followed(world: Any, receiver: Any) -> None:
    """The place a redirect names gets nothing."""
    receiver.status, receiver.extra = 307, f"Location: {receiver.url}/other\r\n"
    answer = await send(_outgoing(receiver.url), world.context)
    assert (answer.verdict, len(receiver.requests)) == (Verdict.REFUSED, 1)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["93.184.216.34", "127.0.0.1"],  # one good, one bad: none is used
        ["::ffff:127.0.0.1"],
    ],
)
async def test_a_name_that_leads_inside_gets_no_connection(
    world: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    """A public name that resolves to ourselves or to cloud metadata is refused before a connection."""
    _resolving(monkeypatch, *addresses)
    for hosts in ((), ("pcp.example.org",)):
        answer = await send(_outgoing(f"https://pcp.example.org:{receiver.port}/"), _with_hosts(world, *hosts))
        assert answer.verdict is Verdict.REFUSED
    assert receiver.requests == []


async def test_a_name_without_an_address_is_tried_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that fails is no refusal."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    assert (await send(_outgoing("https://pcp.example.org/"), _with_hosts(world))).verdict is Verdict.AGAIN


async def test_silence_ends_by_time(world: Any, receiver: Any) -> None:
    """An endpoint that never answers costs the timeout, not more."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        started = asyncio.get_running_loop().time()
        answer = await send(_outgoing(f"http://127.0.0.1:{port}/", timeout_seconds=0.2), world.context)
        assert asyncio.get_running_loop().time() - started < 1.0
    assert answer.verdict is Verdict.AGAIN


async def test_an_endless_answer_is_cut(world: Any) -> None:
    """Only the first bytes of an answer are read and kept."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.transport.abort()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await send(_outgoing(f"http://127.0.0.1:{port}/"), world.context)
    assert (answer.verdict, len(answer.body)) == (Verdict.DELIVERED, KEPT_BYTES)


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[int, ssl.SSLContext, list[str]]]:
    """An https server on loopback that is `localhost` by its certificate, what trusts it, and the names asked of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(pem + secret)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem")
    asked: list[str] = []
    serving.sni_callback = lambda _, server_name, __: asked.append(server_name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(next(line for line in head.decode().split("\r\n") if line.lower().startswith("host:")))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as server:
        yield server.sockets[0].getsockname()[1], ssl.create_default_context(cadata=pem.decode()), asked


async def _sent(world: Any, url: str, trust: ssl.SSLContext, *hosts: str) -> Answer:
    async with httpx2.AsyncClient(verify=trust, trust_env=False) as http:
        return await send(_outgoing(url), _with_hosts(world, *hosts, http=http))


async def test_tls_proves_the_name_though_the_address_is_dialled(
    world: Any, tls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checked address is connected to, with the name in SNI, certificate check and Host; a dead one is skipped."""
    port, trust, asked = tls
    _resolving(monkeypatch, "::1", "127.0.0.1")
    answer = await _sent(world, f"https://localhost:{port}/hook", trust, "localhost")
    assert answer.verdict is Verdict.DELIVERED
    assert asked == ["localhost", f"Host: localhost:{port}"]


async def test_a_certificate_of_another_name_is_not_taken(world: Any, tls: Any) -> None:
    """An endpoint whose certificate does not name it gets nothing."""
    port, trust, asked = tls
    answer = await _sent(world, f"https://127.0.0.1:{port}/hook", trust, "127.0.0.1")
    assert answer.verdict is Verdict.AGAIN
    assert not [line for line in asked if line and line.startswith("Host")]
