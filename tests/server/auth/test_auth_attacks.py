"""X6: forged, stale, foreign and malformed client assertions. Every one gets the same refusal."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.keys import SigningKey, public_jwk, published_jwk

World = Any
Attack = Callable[[World], str]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, signature: bytes = b"x" * 96) -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    return ".".join(map(_b64, (*parts, signature)))


def _signed_raw(world: World, header: bytes, claims: bytes) -> str:
    """A really signed token over bytes that no library would write."""
    signing_input = f"{_b64(header)}.{_b64(claims)}".encode()
    algorithm = jwt.get_algorithm_by_name("ES384")
    return f"{signing_input.decode()}.{_b64(algorithm.sign(signing_input, world.es384.key))}"


def _hs_with_public_key(world: World) -> str:
    pem = world.es384.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS384", "typ": "JWT", "kid": world.es384.kid}
    signing_input = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(world.claims()).encode())}"
    return f"{signing_input}.{_b64(hmac.digest(pem, signing_input.encode(), 'sha384'))}"


def _other_key(world: World) -> SigningKey:
    return SigningKey(ec.generate_private_key(ec.SECP384R1()), world.es384.kid, "ES384")


def _tampered(world: World) -> str:
    head, _, signature = world.assertion().split(".")
    return f"{head}.{_b64(json.dumps(world.claims(sub='ehr-1', jti='another')).encode())}.{signature}"


def _p256(world: World) -> str:
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()), world.es384.kid, "ES256")
    return world.assertion(key)


def _repeated_claim(world: World) -> str:
    claims = json.dumps(world.claims(iss="ehr-1"))
    head = json.dumps({"alg": "ES384", "typ": "JWT", "kid": world.es384.kid})
    return _signed_raw(world, head.encode(), (claims[:-1] + ', "iss": "ehr-1"}').encode())


def _repeated_kid(world: World) -> str:
    kid = world.es384.kid
    head = f'{{"alg": "ES384", "typ": "JWT", "kid": "{kid}", "kid": "{kid}"}}'
    return _signed_raw(world, head.encode(), json.dumps(world.claims()).encode())


def _without_kid(world: World) -> str:
    return jwt.encode(world.claims(), world.es384.key, algorithm="ES384")


def _embedded_jwk(world: World) -> str:
    key = _other_key(world)
    return world.assertion(key, {"jwk": public_jwk(key.key)})


def _no_type(world: World) -> str:
    return jwt.encode(world.claims(), world.es384.key, algorithm="ES384", headers={"kid": world.es384.kid, "typ": None})


ATTACKS: dict[str, Attack] = {
    "alg none": lambda w: jwt.encode(w.claims(), None, algorithm="none", headers={"kid": w.es384.kid}),
    "alg None in capitals": lambda w: _raw({"alg": "nOnE", "typ": "JWT", "kid": w.es384.kid}, w.claims(), b"x"),
    "HMAC with the public key": _hs_with_public_key,
    "alg RS384 against an EC key": lambda w: _raw({"alg": "RS384", "typ": "JWT", "kid": w.es384.kid}, w.claims()),
    "alg ES384 against an RSA key": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": w.rs384.kid}, w.claims()),
    "ES256 with a P-256 key": _p256,
    "RS256 with the registered RSA key": lambda w: w.assertion(w.rs384._replace(alg="RS256")),
    "PS384 with the registered RSA key": lambda w: w.assertion(w.rs384._replace(alg="PS384")),
    "alg is a list": lambda w: _raw({"alg": ["ES384"], "typ": "JWT", "kid": w.es384.kid}, w.claims()),
    "unknown kid": lambda w: w.assertion(header={"kid": "nobody"}),
    "no kid": _without_kid,
    "kid is a number": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": 1}, w.claims()),
    "kid stands twice": _repeated_kid,
    "signed with another key under a known kid": lambda w: w.assertion(_other_key(w)),
    "key in the jwk header": _embedded_jwk,
    "x5u header": lambda w: w.assertion(header={"x5u": "https://attacker.test/cert.pem"}),
    "x5c header": lambda w: w.assertion(header={"x5c": ["AAAA"]}),
    "jku of somebody else": lambda w: w.assertion(header={"jku": "https://attacker.test/jwks.json"}),
    "crit header": lambda w: w.assertion(header={"crit": ["exp"]}),
    "unencoded payload (b64 false)": lambda w: w.assertion(header={"b64": False, "crit": ["b64"]}),
    "typ of an access token": lambda w: w.assertion(header={"typ": "at+jwt"}),
    "no typ": _no_type,
    "exp is 301 s ahead": lambda w: w.assertion(exp=int(time.time()) + 302),
    "exp is a year ahead": lambda w: w.assertion(exp=int(time.time()) + 31_536_000),
    "exp is past": lambda w: w.assertion(exp=int(time.time()) - 1),
    "no exp": lambda w: w.assertion(exp=None),
    "exp is text": lambda w: _raw(
        {"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, w.claims(exp=str(int(time.time()) + 60))
    ),
    "exp is a fraction": lambda w: w.assertion(exp=time.time() + 60.5),
    "exp is true": lambda w: w.assertion(exp=True),
    "iat is in the future": lambda w: w.assertion(iat=int(time.time()) + 120),
    "nbf is in the future": lambda w: w.assertion(nbf=int(time.time()) + 120),
    "aud of another server": lambda w: w.assertion(aud="https://other.test/auth/token"),
    "aud is the base URL": lambda w: w.assertion(aud="http://facade.test"),
    "aud with a trailing slash": lambda w: w.assertion(aud="http://facade.test/auth/token/"),
    "aud names two servers": lambda w: w.assertion(aud=["http://facade.test/auth/token", "https://other.test"]),
    "no aud": lambda w: w.assertion(aud=None),
    "sub is another client": lambda w: w.assertion(sub="hie-1"),
    "no sub": lambda w: w.assertion(sub=None),
    "iss is another client": lambda w: w.assertion(iss="hie-1"),
    "iss and sub of a client with a secret": lambda w: w.assertion(iss="pcp-1", sub="pcp-1"),
    "iss of nobody": lambda w: w.assertion(iss="nobody", sub="nobody"),
    "iss is an object": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, w.claims(iss={"a": 1})),
    "no jti": lambda w: w.assertion(jti=None),
    "empty jti": lambda w: w.assertion(jti=""),
    "jti with a line feed": lambda w: w.assertion(jti="a\nb"),
    "jti of 1000 characters": lambda w: w.assertion(jti="a" * 1000),
    "a claim stands twice": _repeated_claim,
    "claims changed after signing": _tampered,
    "signature cut off": lambda w: w.assertion().rpartition(".")[0] + ".",
    "signature of zeros": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, w.claims(), bytes(96)),
    "encrypted (five segments)": lambda w: w.assertion() + ".AAAA.AAAA",
    "one megabyte": lambda w: w.assertion(filler="a" * 1_000_000),
    "20 kilobytes": lambda w: w.assertion(filler="a" * 20_000),
    "not base64url": lambda w: w.assertion().replace(".", ".+/", 1),
    "not a JWT": lambda w: "Bearer me",
    "payload is no JSON": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, b"\xff\xfe"),
    "payload is a list": lambda w: _raw({"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, b"[1]"),
    "payload nests 500 levels": lambda w: _raw(
        {"alg": "ES384", "typ": "JWT", "kid": w.es384.kid}, b"[" * 500 + b"]" * 500
    ),
}

# what the log and the audit say, so that each attack fails for its own reason and not by accident
REASONS = {
    "alg none": "not-a-jws",
    "alg None in capitals": "alg",
    "HMAC with the public key": "alg",
    "alg RS384 against an EC key": "no-such-key",
    "alg ES384 against an RSA key": "no-such-key",
    "ES256 with a P-256 key": "alg",
    "RS256 with the registered RSA key": "alg",
    "PS384 with the registered RSA key": "alg",
    "alg is a list": "alg",
    "unknown kid": "no-such-key",
    "no kid": "kid",
    "kid is a number": "kid",
    "kid stands twice": "not-json",
    "signed with another key under a known kid": "signature",
    "key in the jwk header": "embedded-key",
    "x5u header": "embedded-key",
    "x5c header": "embedded-key",
    "jku of somebody else": "jku",
    "crit header": "crit",
    "unencoded payload (b64 false)": "not-a-jws",
    "typ of an access token": "typ",
    "no typ": "typ",
    "exp is 301 s ahead": "exp-far",
    "exp is a year ahead": "exp-far",
    "exp is past": "exp-past",
    "no exp": "exp",
    "exp is text": "exp",
    "exp is a fraction": "exp",
    "exp is true": "exp",
    "iat is in the future": "iat",
    "nbf is in the future": "nbf",
    "aud of another server": "aud",
    "aud is the base URL": "aud",
    "aud with a trailing slash": "aud",
    "aud names two servers": "aud",
    "no aud": "aud",
    "sub is another client": "sub",
    "no sub": "sub",
    "iss is another client": "sub",
    "iss and sub of a client with a secret": "no-such-client",
    "iss of nobody": "no-such-client",
    "iss is an object": "no-such-client",
    "no jti": "jti",
    "empty jti": "jti",
    "jti with a line feed": "jti",
    "jti of 1000 characters": "jti",
    "a claim stands twice": "not-json",
    "claims changed after signing": "signature",
    "signature cut off": "not-a-jws",
    "signature of zeros": "signature",
    "encrypted (five segments)": "not-a-jws",
    "one megabyte": "form-too-long",
    "20 kilobytes": "not-a-jws",
    "not base64url": "not-a-jws",
    "not a JWT": "not-a-jws",
    "payload is no JSON": "not-json",
    "payload is a list": "not-an-object",
    "payload nests 500 levels": "not-an-object",
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_every_attack_gets_the_same_refusal(world: World, attack: str) -> None:
    """A wrong assertion is `invalid_client`, says nothing about why, and leaves no used `jti` behind."""
    answer = await world.ask(ATTACKS[attack](world))
    assert answer.status_code == 401
    assert answer.json() == {
        "error": "invalid_client",
        "error_description": "Client authentication failed; the service's log has the reason under the request id.",
    }
    assert answer.headers["cache-control"] == "no-store"
    assert world.store.seen == {}
    assert world.key_server.asked == 0
    assert [(entry.outcome, entry.entity) for entry in world.store.audit] == [("4", f"token/{REASONS[attack]}")]


async def test_a_used_assertion_is_refused(world: World) -> None:
    """The same `jti` a second time is a replay."""
    assertion = world.assertion()
    assert (await world.ask(assertion)).status_code == 200
    assert (await world.ask(assertion)).json()["error"] == "invalid_client"


async def test_a_used_assertion_is_refused_by_another_worker(world: World, restarted: Any) -> None:
    """A replay at another process, or after a restart, is refused: the memory is in the store."""
    assertion = world.assertion()
    assert (await world.ask(assertion)).status_code == 200
    world.authority.__dict__.update(restarted().__dict__)
    assert (await world.ask(assertion)).json()["error"] == "invalid_client"


async def test_the_same_jti_of_another_issuer_is_no_replay(world: World) -> None:
    """A `jti` is unique for its issuer only."""
    world.key_server.keys = [published_jwk(world.es384)]
    assert (await world.ask(world.assertion(jti="shared"))).status_code == 200
    assert (await world.ask(world.assertion(jti="shared", iss="hie-1", sub="hie-1"))).status_code == 200


async def test_a_duplicate_key_id_in_the_jwks_matches_nothing(world: World) -> None:
    """Two keys that fit are as good as none."""
    world.key_server.keys = [published_jwk(world.es384), published_jwk(world.es384)]
    answer = await world.ask(world.assertion(iss="hie-1", sub="hie-1"))
    assert answer.json()["error"] == "invalid_client"


async def test_a_short_rsa_key_is_not_used(world: World) -> None:
    """A registered RSA key of 1024 bits verifies nothing."""
    key = SigningKey(rsa.generate_private_key(65537, 1024), "short", "RS384")
    world.key_server.keys = [{**public_jwk(key.key), "kid": "short"}]
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        assertion = world.assertion(key, iss="hie-1", sub="hie-1")
    assert (await world.ask(assertion)).json()["error"] == "invalid_client"


async def test_refusals_fill_neither_disk_nor_audit(world: World) -> None:
    """At most 60 refusals a minute are written, however many come."""
    for _ in range(100):
        await world.ask("nonsense")
    assert 60 <= len(world.store.audit) <= 120
