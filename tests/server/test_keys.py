"""Keys: loaded or refused in plain words, named by RFC 7638, shown by their public half only."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from server.domain.errors import BadConfiguration
from server.keys import cms_signing_key, generate, public_jwk, published_jwk, thumbprint

# The example of RFC 7638, section 3.1.
MODULUS = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
    "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5ha"
    "jrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)


def _pem(path: Path, key: object, encryption: KeySerializationEncryption | None = None) -> Path:
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[attr-defined]
    )
    return path


def test_the_key_id_is_the_rfc_7638_thumbprint() -> None:
    """The RFC's own example; members beside the required ones do not count."""
    jwk = {"kty": "RSA", "n": MODULUS, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("alg", ["ES384", "ES256"])
def test_a_generated_key_is_loaded_again(tmp_path: Path, alg: str) -> None:
    """With the same id, and for the owner's eyes only."""
    made = generate(tmp_path / "key.pem", alg)
    loaded = cms_signing_key(tmp_path / "key.pem")
    assert (loaded.kid, loaded.alg) == (made.kid, alg)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """Making one where one is fails."""
    generate(tmp_path / "key.pem")
    with pytest.raises(FileExistsError):
        generate(tmp_path / "key.pem")


def test_rsa_keys_sign_rs384(tmp_path: Path) -> None:
    """2048 bits and more."""
    path = _pem(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    assert cms_signing_key(path).alg == "RS384"


def test_what_is_published_is_public(tmp_path: Path) -> None:
    """No private member, neither of EC nor of RSA keys."""
    signing = generate(tmp_path / "key.pem")
    assert published_jwk(signing).keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert public_jwk(rsa.generate_private_key(65537, 2048)).keys() == {"kty", "n", "e"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "can not be read"),
        ("text", "not an unencrypted PEM private key"),
        ("encrypted", "not an unencrypted PEM private key"),
        ("ed25519", "must be EC P-384"),
        ("P-521", "must be EC P-384"),
        ("rsa-1024", "RSA of at least 2048 bits"),
    ],
)
def test_a_useless_key_is_refused_in_plain_words(tmp_path: Path, kind: str, said: str) -> None:
    """The sentence names the file and what is wanted, and shows nothing of what it found."""
    path = tmp_path / "key.pem"
    if kind == "text":
        path.write_text("a password")
    elif kind == "encrypted":
        _pem(path, ec.generate_private_key(ec.SECP384R1()), BestAvailableEncryption(b"secret"))
    elif kind != "missing":
        keys = {
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
            "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),
        }
        _pem(path, keys[kind]())
    with pytest.raises(BadConfiguration) as refused:
        cms_signing_key(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "a password" not in str(refused.value)
