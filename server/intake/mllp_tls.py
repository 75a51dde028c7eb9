"""TLS for the MLLP listener, and mutual TLS: the peer shows a certificate, too.

Source: IETF RFC 9325 (TLS 1.2 or later); IHE ITI TF-2 3.19 (ATNA), which wants both sides to show certificates.
"""

import ssl
from pathlib import Path

from server.domain.errors import BadConfiguration
from server.settings import Mllp


def tls_context(mllp: Mllp) -> ssl.SSLContext | None:
    """What the listener's sockets speak; None is plain TCP, when neither certificate nor key is configured.

    Raises BadConfiguration that names the key of `[mllp]` and the remedy.
    """
    if mllp.certificate_file is None or mllp.private_key_file is None:
        _refuse_half(mllp)
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _own_certificate(made, mllp.certificate_file, mllp.private_key_file)
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
