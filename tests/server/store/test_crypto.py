"""Keys and envelopes (AES-256-GCM, data key per participant, HMAC look-up columns)."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.domain.errors import BadConfiguration, StoreDamaged
from server.store.crypto import DataKey, MasterKey, generate_master_key, read_master_key


@pytest.fixture
def key() -> DataKey:
    """A participant's key."""
    return DataKey(b"d" * 32, 1)


def test_a_generated_key_file_is_private_and_reads_back(tmp_path: Path) -> None:
    """The file holds 32 random bytes in base64, and only its owner may read it."""
    generate_master_key(tmp_path / "master.key")
    mode = (tmp_path / "master.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert len(base64.b64decode((tmp_path / "master.key").read_bytes())) == 32
    read_master_key(tmp_path / "master.key")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    """A key that is lost makes the store unreadable: an existing file stays."""
    generate_master_key(tmp_path / "master.key")
    before = (tmp_path / "master.key").read_bytes()
    with pytest.raises(BadConfiguration, match="there already"):
        generate_master_key(tmp_path / "master.key")
    assert (tmp_path / "master.key").read_bytes() == before


@pytest.mark.parametrize("content", [bytes(range(32)), base64.b64encode(bytes(range(32))), b"x" * 31 + b"\n"])
def test_raw_and_base64_keys_are_taken(tmp_path: Path, content: bytes) -> None:
    """32 raw bytes, or 32 bytes in base64."""
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert read_master_key(path).fits(read_master_key(path).check)


@pytest.mark.parametrize("content", [b"", b"short", base64.b64encode(b"x" * 31), b"!" * 44, "ü".encode() * 22])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no key is named with what it must hold."""
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadConfiguration, match="must hold 32 bytes"):
        read_master_key(path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A key file with wider rights than its owner's is refused, with the remedy."""
    path = tmp_path / "master.key"
    path.write_bytes(b"k" * 32)
    path.chmod(mode)
    with pytest.raises(BadConfiguration, match=r"mode 06[0-9]{2}\); run `chmod 600"):
        read_master_key(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """A missing key file is named with what makes one."""
    with pytest.raises(BadConfiguration, match="access-facade init"):
        read_master_key(tmp_path / "nowhere.key")


def test_an_envelope_opens_where_it_belongs(key: DataKey) -> None:
    """Sealed bytes come back, and the same bytes never look alike."""
    sealed = key.seal(b"plain", b"here")
    assert key.unseal(sealed, b"here") == b"plain"
    assert sealed != key.seal(b"plain", b"here")
    assert len(sealed) == 5 + 12 + 5 + 16


def test_any_changed_bit_is_noticed(key: DataKey) -> None:
    """Each single bit of an envelope counts, its header too."""
    sealed = key.seal(b"plain", b"here")
    for at in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(StoreDamaged):
            key.unseal(bytes(changed), b"here")


@pytest.mark.parametrize("length", range(33))
def test_a_cut_envelope_is_noticed(key: DataKey, length: int) -> None:
    """A value that was cut short is damage, not a crash."""
    with pytest.raises(StoreDamaged):
        key.unseal(key.seal(b"", b"here")[: min(length, 32)], b"here")


def test_an_envelope_elsewhere_stays_shut(key: DataKey) -> None:
    """Another place, another key or another key id does not open it."""
    sealed = key.seal(b"plain", b"here")
    for other, place in ((key, b"there"), (DataKey(b"e" * 32, 1), b"here"), (DataKey(b"d" * 32, 2), b"here")):
        with pytest.raises(StoreDamaged):
            other.unseal(sealed, place)


def test_a_data_key_is_bound_to_its_participant() -> None:
    """A wrapped key that was moved to another participant, or another master key, does not open."""
    master = MasterKey(b"m" * 32)
    wrapped = master.new_wrapped("ACCES12345", 1)
    master.unwrap(wrapped, "ACCES12345", 1)
    for other, participant, key_id in (
        (master, "ACCES54321", 1),
        (master, "ACCES12345", 2),
        (MasterKey(b"n" * 32), "ACCES12345", 1),
    ):
        with pytest.raises(StoreDamaged):
            other.unwrap(wrapped, participant, key_id)


def test_hashes_depend_on_value_column_and_key(key: DataKey) -> None:
    """The same value gives the same hash in one column of one participant only."""
    assert key.blind("v", b"t|c|") == key.blind("v", b"t|c|")
    others = {key.blind("w", b"t|c|"), key.blind("v", b"t|d|"), DataKey(b"e" * 32, 1).blind("v", b"t|c|")}
    assert key.blind("v", b"t|c|") not in others
    assert len(others) == 3


def test_a_key_works_in_several_threads(key: DataKey) -> None:
    """Readers and the writer share a key object."""

    def work(number: int) -> bool:
        plain = os.urandom(2000)
        same = key.unseal(key.seal(plain, b"p"), b"p") == plain
        return same and key.blind(str(number % 7), b"p") == key.blind(str(number % 7), b"p")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(4000)))
