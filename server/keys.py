"""Private keys in PEM files: load, make, name (RFC 7638) and show their public half (RFC 7517).

Used for the assertions that we sign for CMS (ES384, RS384) and for the access tokens that we issue (ES256).
"""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from server.domain.errors import BadConfiguration

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MINIMUM_RSA_BITS = 2048  # RFC 7518, section 3.3
CURVES: dict[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384"}  # RFC 7518, section 3.4
GENERATED: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}  # RFC 7638, section 3.2


class SigningKey(NamedTuple):
    """A private key, its `kid` (RFC 7638 thumbprint) and the one JWS algorithm that it signs with."""

    key: PrivateKey
    kid: str
    alg: str


def cms_signing_key(path: Path) -> SigningKey:
    """The key of a PEM file. Raises BadConfiguration in plain words: no file, no key, or a key of no use."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as bad:
        raise BadConfiguration(f"{path}: the key file can not be read ({type(bad).__name__}); name another") from None
    except (ValueError, TypeError):
        raise BadConfiguration(f"{path}: this is not an unencrypted PEM private key; put one there") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return SigningKey(key, thumbprint(public_jwk(key)), CURVES[key.curve.name])
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MINIMUM_RSA_BITS:
        return SigningKey(key, thumbprint(public_jwk(key)), "RS384")
    raise BadConfiguration(f"{path}: the key must be EC P-384, EC P-256, or RSA of at least {MINIMUM_RSA_BITS} bits")


def generate(path: Path, alg: str = "ES384") -> SigningKey:
    """Makes a new EC key (ES384, ES256) in a new file that only the owner can read. Raises FileExistsError."""
    key = ec.generate_private_key(GENERATED[alg]())
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return SigningKey(key, thumbprint(public_jwk(key)), alg)


def write_secret(path: Path, data: bytes) -> None:
    """Writes a new file with mode 0600. Raises FileExistsError: a secret is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def public_jwk(key: PrivateKey | PublicKey) -> dict[str, Any]:
    """The public members of a key, as RFC 7517 has them: `kty` and the coordinates, nothing else."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else key
    if isinstance(public, rsa.RSAPublicKey):
        full: dict[str, Any] = RSAAlgorithm.to_jwk(public, as_dict=True)
    else:
        full = ECAlgorithm.to_jwk(public, as_dict=True)
    return {name: full[name] for name in THUMBPRINT_MEMBERS[full["kty"]]}


def published_jwk(signing: SigningKey) -> dict[str, Any]:
    """The entry of a JWKS that lets a peer verify what `signing` signs."""
    return {**public_jwk(signing.key), "kid": signing.kid, "use": "sig", "alg": signing.alg}


def thumbprint(jwk: dict[str, Any]) -> str:
    """The SHA-256 thumbprint of a public JWK, base64url without padding. Source: RFC 7638, section 3."""
    members = {name: jwk[name] for name in THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
