"""Places where no request of ours may arrive: what stands in the way of the connection itself, by name.

Each is an https origin on loopback; `honest` has a certificate that is right and leads to the stand-in CMS.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.app import Tls, create_app, server
from sandbox.settings import Settings

# Python 3.13 checks by all of RFC 5280: an authority says that it signs certificates.
SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    **dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    ),
    encipher_only=False,
    decipher_only=False,
)
NOBODY = "https://cms.invalid"  # RFC 6761: a name that never resolves
NAMES = (
    "connection refused",
    "no such name",
    "certificate of an unknown authority",
    "certificate that has expired",
    "certificate of another host",
    "certificate of another address",
    "TLS 1.2 at most",
    "no TLS at all",
    "handshake that never ends",
)


@dataclass
class Authority:
    """Signs certificates; `file` is what a client trusts."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.file = self.folder / f"{self.name}.pem"
        self.subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)])
        made = self._builder(self.subject, self.key.public_key(), days=(-1, 1))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(SIGNS, critical=True)
        self.file.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str, *, host: x509.GeneralName | None = None, days: tuple[int, int] = (-1, 1)) -> Tls:
        """A server's certificate and key, from and to so many days from now; for this address unless said otherwise."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
        made = self._builder(subject, key.public_key(), days=days)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([host or x509.IPAddress(ip_address("127.0.0.1"))])
        made = made.add_extension(names, critical=False)
        files = Tls(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        files.certificate.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        clear = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files.private_key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *clear))
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: tuple[int, int]
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        begin, end = (now + timedelta(days=each) for each in days)
        made = x509.CertificateBuilder(self.subject, subject, key, x509.random_serial_number(), begin, end)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return made.add_extension(own, critical=False)


@dataclass
class Listener:
    """Takes connections and does `answer` with each; `seen` is what came through."""

    answer: ssl.SSLContext | None
    seen: list[bytes]
    listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.listening.getsockname()[1]}"

    def stop(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(2)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            connection.settimeout(1.0)
            with contextlib.suppress(OSError), connection:
                self._one(connection)

    def _one(self, connection: socket.socket) -> None:
        if self.answer is None:
            connection.recv(65536)  # a ClientHello
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        with self.answer.wrap_socket(connection, server_side=True) as secured:
            self.seen.append(secured.recv(65536))


@dataclass(frozen=True, slots=True)
class Doors:
    """Their origins by name, the authority to trust, the honest origin, and all that came through any of the others."""

    origins: dict[str, str]
    authority: Path
    honest: str
    seen: list[bytes]


@contextlib.contextmanager
def doors(folder: Path, settings: Settings) -> Iterator[Doors]:
    """All of them, open."""
    known, unknown = Authority(folder, "known"), Authority(folder, "unknown")
    seen: list[bytes] = []
    right = known.certificate("right")
    speaking = {
        "certificate of an unknown authority": _speaks(unknown.certificate("stray")),
        "certificate that has expired": _speaks(known.certificate("old", days=(-3, -2))),
        "certificate of another host": _speaks(known.certificate("host", host=x509.DNSName("cms.example"))),
        "certificate of another address": _speaks(
            known.certificate("address", host=x509.IPAddress(ip_address("127.0.0.2")))
        ),
        "TLS 1.2 at most": _speaks(right, most=ssl.TLSVersion.TLSv1_2),
        "no TLS at all": None,
    }
    listeners = {name: Listener(context, seen) for name, context in speaking.items()}
    silent, closed = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    origins = {name: listener.url for name, listener in listeners.items()} | {"no such name": NOBODY}
    origins |= {"handshake that never ends": f"https://127.0.0.1:{silent.getsockname()[1]}"}
    origins |= {"connection refused": f"https://127.0.0.1:{closed.getsockname()[1]}"}
    closed.close()
    with silent, _honest(right, settings) as honest:
        yield Doors(origins, known.file, honest, seen)
    for listener in listeners.values():
        listener.stop()


def _speaks(files: Tls, *, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = most
    context.load_cert_chain(files.certificate, files.private_key)
    return context


@contextlib.contextmanager
def _honest(files: Tls, settings: Settings) -> Iterator[str]:
    """A stand-in CMS of its own that speaks TLS 1.3."""
    running = server(create_app(settings), tls=files)
    listening = running.config.bind_socket()
    listening.listen(64)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join(10)
