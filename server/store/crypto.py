"""Encryption at rest: one master key file, one data key per participant wrapped by it, AES-256-GCM for sealed columns.

An envelope is: version (1 byte), key id (4 bytes), nonce (12 bytes), ciphertext with its 16-byte tag. What it is bound
to (table, key, column, revision) is authenticated, so that a sealed value moved elsewhere, or put back after a later
write, is not opened. Sources: NIST SP 800-38D (GCM, random 96-bit nonces: at most 2^32 a key), RFC 5869 (HKDF).
"""

import base64
import binascii
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.domain.errors import BadConfiguration, StoreDamaged

KEY_BYTES = 32
NONCE_BYTES = 12
BLIND_BYTES = 16  # 128 bits: no two identifiers of a participant will meet
_DRAWN_TOGETHER = 256  # nonces: a system call for each would cost more than the encryption
_VERSION = b"\x01"
_HEADER_BYTES = 5


def generate_master_key(path: Path) -> None:
    """Writes a new key file, readable by its owner only. Raises BadConfiguration if the file is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadConfiguration(f"{path}: the key file is there already and is not overwritten") from None
    except OSError as bad:
        raise BadConfiguration(f"{path}: the key file can not be written: {bad.strerror}") from None
    with open(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_master_key(path: Path) -> "MasterKey":
    """Reads 32 bytes, raw or base64. Raises BadConfiguration if the file is missing, open to others or not a key."""
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as bad:
        raise BadConfiguration(
            f"{path}: the key file can not be read ({bad.strerror}); `access-facade init DIR` makes one"
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise BadConfiguration(
            f"{path}: the key file is open to other users (mode {mode & 0o777:04o}); run `chmod 600 {path}`"
        )
    return MasterKey(_key_bytes(path, content))


def _key_bytes(path: Path, content: bytes) -> bytes:
    if len(content) == KEY_BYTES:
        return content
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadConfiguration(f"{path}: the key file must hold 32 bytes, raw or in base64")
    return key


_nonces: list[bytes] = []
os.register_at_fork(after_in_child=_nonces.clear)  # a nonce is used once, in one process


def random_nonce() -> bytes:
    """12 bytes of the system's randomness that nobody else gets, in any thread."""
    while True:
        try:
            return _nonces.pop()
        except IndexError:
            drawn = os.urandom(NONCE_BYTES * _DRAWN_TOGETHER)
            _nonces.extend(drawn[at : at + NONCE_BYTES] for at in range(0, len(drawn), NONCE_BYTES))


def _digest(keyed: HMAC, message: bytes) -> bytes:
    keyed = keyed.copy()
    keyed.update(message)
    return keyed.finalize()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"access-facade/" + purpose).derive(key)


class DataKey:
    """One participant's key: seals columns, blinds look-up values, signs the head of the audit chain."""

    __slots__ = ("_blind", "_cipher", "_header", "_sign", "key_id")

    def __init__(self, key: bytes, key_id: int) -> None:
        self.key_id = key_id
        self._header = _VERSION + key_id.to_bytes(4, "big")
        self._cipher = AESGCM(key)
        self._blind = HMAC(
            _derived(key, b"blind"), SHA256()
        )  # copied for each use: its set-up costs more than its work
        self._sign = HMAC(_derived(key, b"sign"), SHA256())

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """The envelope of `plain`, good for that place only."""
        nonce = random_nonce()
        return self._header + nonce + self._cipher.encrypt(nonce, plain, self._header + bound_to)

    def unseal(self, envelope: bytes, bound_to: bytes) -> bytes:
        """The plain bytes. Raises StoreDamaged if the envelope was changed, moved or sealed with another key."""
        header, nonce = envelope[:_HEADER_BYTES], envelope[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        if header != self._header:
            raise StoreDamaged("a sealed value names another key or form than this participant's")
        try:
            return self._cipher.decrypt(nonce, envelope[_HEADER_BYTES + NONCE_BYTES :], header + bound_to)
        except (InvalidTag, ValueError):
            raise StoreDamaged("a sealed value was changed after it was written") from None

    def blind(self, value: str, domain: bytes) -> str:
        """The keyed hash of a look-up value; the domain is the column, so that equal values do not show across them."""
        digest = _digest(self._blind, domain + value.encode())
        return binascii.b2a_base64(digest[:BLIND_BYTES], newline=False)[:-2].decode()

    def sign(self, message: bytes) -> bytes:
        """A 32-byte signature that only a holder of the key can make."""
        return _digest(self._sign, message)


class MasterKey:
    """Wraps and unwraps data keys. `check` is stored, to tell a wrong key at once."""

    __slots__ = ("_wrapper", "check")

    def __init__(self, key: bytes) -> None:
        self._wrapper = AESGCM(_derived(key, b"wrap"))
        self.check = _derived(key, b"check")

    def fits(self, check: bytes) -> bool:
        """Whether a stored check value was made by this key."""
        return hmac.compare_digest(self.check, check)

    def new_wrapped(self, participant_id: str, key_id: int) -> bytes:
        """A fresh data key, wrapped."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapper.encrypt(nonce, os.urandom(KEY_BYTES), _wrapped_for(participant_id, key_id))

    def unwrap(self, wrapped: bytes, participant_id: str, key_id: int) -> DataKey:
        """The data key. Raises StoreDamaged if it was changed or belongs to somebody else."""
        nonce, body = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
        try:
            return DataKey(self._wrapper.decrypt(nonce, body, _wrapped_for(participant_id, key_id)), key_id)
        except (InvalidTag, ValueError):
            raise StoreDamaged(f"the data key of participant {participant_id!r} was changed or moved") from None


def _wrapped_for(participant_id: str, key_id: int) -> bytes:
    return f"data_key|{participant_id}|{key_id}".encode()
