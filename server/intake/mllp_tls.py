"""TLS for the MLLP listener, and mutual TLS: the peer shows a certificate, too.

Certificates are renewed every few weeks and connections last for months: each new connection sees the files as they are
then, without a restart. Files that can not be used (one is written, the other not yet) leave what was there before.
Source: IETF RFC 9325 (TLS 1.2 or later); IHE ITI TF-2 3.19 (ATNA), which wants both sides to show certificates.
"""

import ssl
from pathlib import Path

from server.domain.errors import BadConfiguration
from server.logs import get_logger
from server.settings import Mllp

log = get_logger()
Stamp = tuple[tuple[int, int, int] | None, ...]  # of each file: when it was written, its size, which file it is


def tls_context(mllp: Mllp) -> ssl.SSLContext | None:
    """What the listener's sockets speak; None is plain TCP, when neither certificate nor key is configured.

    Raises BadConfiguration that names the key of `[mllp]` and the remedy.
    """
    if mllp.certificate_file is None or mllp.private_key_file is None:
        _refuse_half(mllp)
        return None
    stamp = _stamp(mllp)
    made = _read(mllp, mllp.certificate_file, mllp.private_key_file)
    made.sni_callback = _Renewal(mllp, made, stamp).turn
    return made


class _Renewal:
    """Which context a new connection takes."""

    def __init__(self, mllp: Mllp, first: ssl.SSLContext, stamp: Stamp) -> None:
        self._mllp = mllp
        self._current = first
        self._stamp = stamp

    def turn(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called at each client's first message, whether it names a server or not. Raises nothing."""
        stamp = _stamp(self._mllp)
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        certificate, key = self._mllp.certificate_file, self._mllp.private_key_file
        assert certificate is not None, "without it there is no TLS"
        assert key is not None, "without it there is no TLS"
        try:
            self._current = _read(self._mllp, certificate, key)
        except BadConfiguration as bad:
            log.warning("mllp certificate not renewed", door="mllp", reason=str(bad))
        else:
            log.info("mllp certificate renewed", door="mllp")


def _stamp(mllp: Mllp) -> Stamp:
    return tuple([_written(path) for path in (mllp.certificate_file, mllp.private_key_file, mllp.client_ca_file)])


def _written(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None


def _read(mllp: Mllp, certificate: Path, key: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _own_certificate(made, certificate, key)
    if mllp.client_ca_file is not None:
        _peers(made, mllp.client_ca_file)
    return made


def _refuse_half(mllp: Mllp) -> None:
    """Half a configuration never means plain text."""
    missing = [name for name in ("certificate_file", "private_key_file") if getattr(mllp, name) is None]
    if len(missing) == 1 or mllp.client_ca_file is not None:
        raise BadConfiguration(f"[mllp] {' and '.join(missing)} missing: TLS needs a certificate and its private key.")


def _own_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never asks on a terminal
    except FileNotFoundError:
        missing = next(path for path in (certificate, key) if not path.exists())
        raise BadConfiguration(f"[mllp] {missing}: no such file.") from None
    except (OSError, ValueError) as bad:
        reason = getattr(bad, "reason", None) or type(bad).__name__
        text = f"[mllp] {certificate} and {key} are no certificate (PEM, chain included) with its unencrypted key"
        raise BadConfiguration(f"{text}: {reason}.") from None


def _peers(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as bad:
        raise BadConfiguration(f"[mllp] client_ca_file {authorities} holds no PEM certificates: {bad}.") from None
    context.verify_mode = ssl.CERT_REQUIRED
