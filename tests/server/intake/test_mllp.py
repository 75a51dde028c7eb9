"""The MLLP listener: framing, limits, many connections, TLS, mutual TLS; nothing is acknowledged that is not kept."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from server.domain.errors import BadConfiguration, StoreUnavailable
from server.domain.received import Received, ReceivedState
from server.domain.resource import StoredResource
from server.intake.mllp import Listener, listen
from server.settings import Mllp
from server.store.base import Where

START, END = b"\x0b", b"\x1c\x0d"
TRUNCATED = b"MSH|^~\\&|LAB|X|F|C|20260820||ORU^R01|T1|P|2.5.1\rPID|1||MRN"
Opening = Callable[..., AbstractAsyncContextManager[Listener]]


class Peer:
    """A lab's MLLP connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port, self.tls = port, tls

    async def __aenter__(self) -> "Peer":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> bytes:
        """Writes the bytes and waits for one framed answer."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readuntil(END), 20)

    async def ended(self) -> bool:
        """Whether the listener closes the connection without another byte."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 20) == b""
        return True


@pytest.fixture
def opened(installation) -> Opening:
    """Opens a listener on a free port with given settings."""

    @contextlib.asynccontextmanager
    async def opening(**settings) -> AsyncIterator[Listener]:
        context = settings.pop("context", installation.context)
        listener = await listen(context, Mllp("ACCES12345", port=0, **settings))
        yield listener
        listener.close()
        await listener.wait_closed()

    return opening


async def _stored(installation, kind: str) -> int:
    return len(await installation.context.store.find(StoredResource, Where("resource_type", "==", kind)))


async def test_what_is_acknowledged_is_on_disk(installation, labs, opened):
    """A framed message gets a framed AA, and its resources are there."""
    async with opened() as listener, Peer(listener.port) as lab:
        answer = await lab.send(START + labs + END)
    assert answer.startswith(START + b"MSH")
    assert b"MSA|AA|LAB0001" in answer
    assert await _stored(installation, "Observation") == 7


async def test_split_and_joined_frames_and_noise(labs, opened):
    """Bytes between frames are skipped; frames may come in any pieces, and a repeat gets the stored ACK again."""
    async with opened() as listener, Peer(listener.port) as lab:
        frame = b"noise" + START + labs + END
        for at in range(0, len(frame), 100):
            lab.writer.write(frame[at : at + 100])
            await lab.writer.drain()
        first = await lab.send(b"\n\n")
        again = await lab.send(frame + frame)
        third = await lab.send(b"")
    assert first == again == third


async def test_a_frame_broken_off_by_a_new_one_is_dropped(installation, labs, opened):
    """A start byte inside a frame begins anew: the first half never becomes part of the next patient's message."""
    async with opened() as listener, Peer(listener.port) as lab:
        answer = await lab.send(START + labs[: len(labs) // 2] + START + labs + END)
    assert b"MSA|AA|LAB0001" in answer
    (kept,) = await installation.context.store.find(Received)
    assert kept.body == labs


async def test_a_truncated_message_is_refused_and_kept(installation, opened):
    """AE or AR, and the bytes are in quarantine."""
    async with opened() as listener, Peer(listener.port) as lab:
        answer = await lab.send(START + TRUNCATED + END)
    assert b"MSA|AE" in answer or b"MSA|AR" in answer
    (kept,) = await installation.context.store.find(Received)
    assert kept.state is ReceivedState.QUARANTINED


async def test_a_batch_in_one_frame_is_answered_message_by_message(labs, opened):
    """As over HTTP: each message of a batch is taken by itself."""
    batch = b"BHS|^~\\&|LAB\r" + labs + labs.replace(b"LAB0001", b"LAB0002") + b"BTS|2\r"
    async with opened() as listener, Peer(listener.port) as lab:
        answers = [await lab.send(START + batch + END), await lab.send(b"")]
    assert [b"MSA|AA|LAB000%d" % number in answer for number, answer in enumerate(answers, 1)] == [True, True]


async def test_other_bytes_under_the_same_control_id_are_refused_and_kept(installation, labs, opened):
    """MSH-3 and MSH-10 again with other content: AE with 205, in quarantine; the first stands."""
    async with opened() as listener, Peer(listener.port) as lab:
        await lab.send(START + labs + END)
        answer = await lab.send(START + labs.replace(b"|8.1|", b"|6.1|") + END)
    assert b"MSA|AE|LAB0001" in answer
    assert b"ERR||MSH^1^10|205^" in answer
    states = [row.state for row in await installation.context.store.find(Received)]
    assert sorted(states) == [ReceivedState.ACCEPTED, ReceivedState.QUARANTINED]


@pytest.mark.parametrize("accept", ["NE", "ER"])
async def test_an_answer_that_is_not_wanted_is_not_sent(labs, opened, accept):
    """Enhanced mode: MSH-15 NE never, ER on error only; the next message is answered all the same."""
    silent = labs.replace(b"|P|2.5.1|||", b"|P|2.5.1|||" + accept.encode(), 1)
    assert silent != labs
    async with opened() as listener, Peer(listener.port) as lab:
        lab.writer.write(START + silent + END)
        answer = await lab.send(START + labs.replace(b"LAB0001", b"LAB0002") + END)
    assert b"|LAB0002" in answer


async def test_a_silent_connection_is_closed(opened):
    """After idle_seconds."""
    async with opened(idle_seconds=0.05) as listener, Peer(listener.port) as lab:
        assert await lab.ended()


async def test_noise_keeps_no_connection_open(opened):
    """Bytes that are no frame do not count as a sign of life."""
    async with opened(idle_seconds=0.2) as listener, Peer(listener.port) as lab:
        closed = asyncio.create_task(lab.ended())
        while not closed.done():
            lab.writer.write(b".")
            await asyncio.sleep(0.02)
        assert await closed


async def test_a_frame_that_does_not_end_is_closed(installation, labs, opened):
    """A slow drip is cut off after frame_seconds, and nothing is stored of it."""
    async with opened(frame_seconds=0.1) as listener, Peer(listener.port) as lab:
        lab.writer.write(START + labs)
        assert await lab.ended()
    assert await installation.context.store.find(Received) == []


async def test_a_frame_that_is_too_long_is_closed(installation, labs, opened):
    """Longer than max_bytes: no answer, since no message was read."""
    async with opened(max_bytes=10_000) as listener, Peer(listener.port) as lab:
        lab.writer.write(START + labs + b"Z" * 20_000)
        assert await lab.ended()
    assert await installation.context.store.find(Received) == []


async def test_one_connection_too_many_is_closed_at_once(labs, opened):
    """max_connections; those that are there go on."""
    async with opened(max_connections=2) as listener, Peer(listener.port) as lab, Peer(listener.port) as other:
        await lab.send(START + labs + END)
        await other.send(START + labs + END)
        async with Peer(listener.port) as third:
            assert await third.ended()
        assert b"MSA|AA" in await lab.send(START + labs + END)


async def test_fifteen_hundred_idle_connections_keep_nobody_waiting(labs, opened):
    """A message is taken beside them, and each of them is still open afterwards."""
    async with opened() as listener, contextlib.AsyncExitStack() as stack:
        idle = []
        for _ in range(15):
            idle += await asyncio.gather(*(stack.enter_async_context(Peer(listener.port)) for _ in range(100)))
        async with Peer(listener.port) as lab:
            assert b"MSA|AA|LAB0001" in await lab.send(START + labs + END)
        assert listener.connections >= 1500
        assert not any(peer.reader.at_eof() for peer in idle)
        assert b"MSA|AA|LAB0001" in await idle[700].send(START + labs + END)


async def test_no_answer_when_the_store_can_not_take_the_message(installation, labs, opened, monkeypatch):
    """The connection is closed in silence: the sender keeps its message."""

    async def full(_changes) -> None:
        raise StoreUnavailable("no room")

    class Full:
        def __getattr__(self, name: str):
            return full if name == "commit" else getattr(installation.context.store, name)

    context = replace(installation.context, store=Full())
    async with opened(context=context) as listener, Peer(listener.port) as lab:
        lab.writer.write(START + labs + END)
        assert await lab.ended()


async def test_closing_ends_idle_connections_and_answers_what_came(labs, opened):
    """A stop does not wait for idle senders, and cuts off no message that is at work."""
    async with opened() as listener, Peer(listener.port) as idle, Peer(listener.port) as lab:
        await lab.send(START + labs + END)
        lab.writer.write(START + labs.replace(b"LAB0001", b"LAB0002") + END)
        await asyncio.sleep(0.01)
        listener.close()
        answer = await asyncio.wait_for(lab.reader.read(), 20)
        assert answer == b"" or b"|LAB0002" in answer
        assert await idle.ended()
        await listener.wait_closed()
        assert listener.connections == 0


# --- TLS ------------------------------------------------------------------------------------------------------------
_NOT = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_SIGNS = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False, **dict.fromkeys(_NOT, False)
)


class Authority:
    """A certificate authority of this test, and its files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(subject, self.key.public_key(), subject, authority=True)
        self.file = self._write(f"{name}.crt", self.certificate.public_bytes(Encoding.PEM))

    def _signed(self, subject, public_key, issuer, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
        made = made.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())  # Python 3.13 wants both
        made = made.add_extension(own, critical=False)
        if authority:
            made = made.add_extension(_SIGNS, critical=True)
        return made.sign(self.key, SHA256())

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._signed(subject, key.public_key(), self.certificate.subject, authority=False)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return (
            self._write(f"{name}.crt", signed.public_bytes(Encoding.PEM)),
            self._write(f"{name}.key", private),
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs the facade's certificate and the lab's."""
    return Authority(tmp_path, "authority")


def _client(authority: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authority.file)
    if shown is not None:
        made.load_cert_chain(*shown)
    return made


def _serving(authority: Authority, **more) -> dict[str, Path]:
    certificate, key = authority.issue("facade")
    return {"certificate_file": certificate, "private_key_file": key, **more}


async def test_messages_come_over_tls(installation, labs, opened, authority):
    """With a certificate the listener speaks TLS 1.2 or later, with the same answers."""
    async with opened(**_serving(authority)) as listener, Peer(listener.port, _client(authority)) as lab:
        assert b"MSA|AA|LAB0001" in await lab.send(START + labs + END)
        assert lab.writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    assert await _stored(installation, "Observation") == 7


async def test_plain_text_is_not_taken_beside_tls(installation, labs, opened, authority):
    """There is no way back to plain text."""
    async with opened(**_serving(authority)) as listener, Peer(listener.port) as lab:
        lab.writer.write(START + labs + END)
        with contextlib.suppress(ConnectionError):
            assert END not in await asyncio.wait_for(lab.reader.read(), 20)
    assert await installation.context.store.find(Received) == []


async def test_a_peer_with_the_right_certificate_is_let_in(labs, opened, authority):
    """Mutual TLS: the lab's certificate is signed by the authority that the configuration names."""
    lab_files = authority.issue("lab")
    serving = _serving(authority, client_ca_file=authority.file)
    async with opened(**serving) as listener, Peer(listener.port, _client(authority, lab_files)) as lab:
        assert b"MSA|AA|LAB0001" in await lab.send(START + labs + END)


def _shown(lab: Peer) -> str:
    """The serial number of the certificate that the listener showed."""
    return str(lab.writer.get_extra_info("peercert")["serialNumber"])


async def test_a_renewed_certificate_is_taken_up_without_a_restart(labs, opened, authority):
    """A new connection sees it; one that stood before goes on."""
    client = _client(authority)
    async with opened(**_serving(authority)) as listener, Peer(listener.port, client) as before:
        authority.issue("facade")
        async with Peer(listener.port, client) as after:
            assert _shown(after) != _shown(before)
            assert b"MSA|AA|LAB0001" in await after.send(START + labs + END)
        assert b"MSA|AA|LAB0001" in await before.send(START + labs + END)


async def test_a_certificate_without_its_key_yet_leaves_the_old_one(labs, opened, authority):
    """Between the writing of the two files the old pair serves; then the new one."""
    client, serving = _client(authority), _serving(authority)
    key, newer = serving["private_key_file"], authority.issue("newer")
    async with opened(**serving) as listener:
        async with Peer(listener.port, client) as lab:
            old = _shown(lab)
        serving["certificate_file"].write_bytes(newer[0].read_bytes())
        async with Peer(listener.port, client) as lab:
            assert _shown(lab) == old
            assert b"MSA|AA|LAB0001" in await lab.send(START + labs + END)
        key.write_bytes(newer[1].read_bytes())
        async with Peer(listener.port, client) as lab:
            assert _shown(lab) != old


async def test_a_renewed_list_of_authorities_decides_who_is_let_in(labs, opened, authority, tmp_path):
    """Mutual TLS: a lab whose authority is no longer named is not let in, without a restart."""
    (tmp_path / "other").mkdir()
    named, files = tmp_path / "named.crt", authority.issue("lab")
    named.write_bytes(authority.file.read_bytes())
    async with opened(**_serving(authority, client_ca_file=named)) as listener:
        async with Peer(listener.port, _client(authority, files)) as lab:
            assert b"MSA|AA|LAB0001" in await lab.send(START + labs + END)
        named.write_bytes(Authority(tmp_path / "other", "other").file.read_bytes())
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            async with Peer(listener.port, _client(authority, files)) as lab:
                assert END not in await lab.send(START + labs + END)


@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
async def test_a_peer_without_the_right_certificate_is_not_let_in(
    installation, labs, opened, authority, tmp_path, shown
):
    """Mutual TLS: no certificate, or one that somebody else signed, ends the connection before a byte is read."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    files = None if shown == "nothing" else other.issue("stranger")
    async with opened(**_serving(authority, client_ca_file=authority.file)) as listener:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            async with Peer(listener.port, _client(authority, files)) as lab:
                assert END not in await lab.send(START + labs + END)
    assert await installation.context.store.find(Received) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"private_key_file": None}, "private_key_file missing"),
        ({"certificate_file": None}, "certificate_file missing"),
        ({"private_key_file": Path("/nowhere/x.key")}, "no such file"),
        ({"client_ca_file": Path("/nowhere/ca.crt")}, "client_ca_file"),
        ({"certificate_file": None, "private_key_file": None, "client_ca_file": Path("x")}, "private_key_file missing"),
    ],
)
async def test_unusable_tls_files_stop_the_start_in_plain_words(opened, authority, change, said):
    """Half a configuration never falls back to plain text."""
    with pytest.raises(BadConfiguration, match=said):
        async with opened(**_serving(authority) | change):
            pass


async def test_a_key_of_another_certificate_stops_the_start(opened, authority):
    """The text names both files."""
    _, other = authority.issue("other")
    with pytest.raises(BadConfiguration, match=r"facade\.crt and .*other\.key"):
        async with opened(**_serving(authority) | {"private_key_file": other}):
            pass
