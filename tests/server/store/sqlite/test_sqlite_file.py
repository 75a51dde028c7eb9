"""What is SQLite's own: the file, its rights, its mode, its versions, wrong keys, full and failing disks."""

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.domain.errors import BadConfiguration, StoreDamaged, StoreUnavailable
from server.domain.memory import Remembered
from server.domain.received import Received
from server.store.base import Changeset, Store
from server.store.crypto import generate_master_key
from server.store.opening import open_store
from server.store.sqlite import migrations
from server.store.sqlite.ddl import create_all

VERSION_1 = Path(__file__).parents[3] / "cases" / "store" / "version-1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store will be, beside its key."""
    generate_master_key(tmp_path / "master.key")
    return tmp_path / "access.db"


def opened(path: Path, key: str = "master.key") -> Store:
    """The store, open."""
    return open_store(f"sqlite:///{path}", path.parent / key)


def ask(path: Path, sql: str) -> Any:
    """The first row that SQLite itself answers."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql).fetchone()
    finally:
        connection.close()


async def test_the_files_are_private(path: Path, samples: Any) -> None:
    """The file and its WAL may be read by their owner only, whatever the umask."""
    before = os.umask(0)
    try:
        store = opened(path)
        await store.commit(Changeset(insert=(samples.received(),)))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("access.db*")}
    finally:
        os.umask(before)
    await store.close()
    assert modes == {"access.db": 0o600, "access.db-wal": 0o600, "access.db-shm": 0o600}


async def test_commits_are_synced(path: Path) -> None:
    """WAL, and synchronous=FULL (2): a commit is on the disk, not only with the kernel."""
    store: Any = opened(path)
    connection = store._writer._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_readers_can_not_write(path: Path) -> None:
    """Only one connection writes."""
    store: Any = opened(path)
    with pytest.raises(StoreUnavailable, match="only be read"):
        await store._readers.near(lambda connection: connection.execute("DELETE FROM job"))
    await store.close()


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:", "postgresql://h/db", "access.db"])
def test_other_urls_are_refused(path: Path, url: str) -> None:
    """Only files are stores; the message says how to write one."""
    with pytest.raises(BadConfiguration, match="sqlite:///access.db"):
        open_store(url, path.parent / "master.key")


def test_a_missing_folder_is_named(path: Path) -> None:
    """The file that can not be made is named."""
    with pytest.raises(BadConfiguration, match="No such file"):
        open_store(f"sqlite:///{path.parent}/nowhere/access.db", path.parent / "master.key")


async def test_a_wrong_key_opens_nothing(path: Path) -> None:
    """Another master key is told at once, in plain words, and changes nothing."""
    await opened(path).close()
    generate_master_key(path.parent / "other.key")
    with pytest.raises(StoreDamaged, match="the master key is not the one"):
        opened(path, "other.key")
    await opened(path).close()


async def test_a_removed_check_value_is_not_made_anew(path: Path, samples: Any) -> None:
    """Who empties the check value does not get a store that takes any key."""
    store = opened(path)
    await store.commit(Changeset(insert=(samples.received(),)))
    await store.close()
    ask(path, "DELETE FROM store_meta")
    with pytest.raises(StoreDamaged, match="master key"):
        opened(path)


def test_no_database_is_damage(path: Path) -> None:
    """A file that is no database is called damaged."""
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(StoreDamaged):
        opened(path)


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A database with other tables is not turned into a store."""
    ask(path, "CREATE TABLE theirs (a)")
    with pytest.raises(BadConfiguration, match="another program"):
        opened(path)


async def test_a_damaged_page_is_told(path: Path, samples: Any) -> None:
    """A flipped stretch in the file is damage when it is read, never a wrong answer."""
    store = opened(path)
    await store.commit(Changeset(insert=tuple(samples.received(f"r{n}", body=b"x" * 3000) for n in range(200))))
    await store.close()
    damaged = bytearray(path.read_bytes())
    for at in range(len(damaged) // 2, len(damaged) - 4096, 4096):
        damaged[at : at + 600] = b"\xa5" * 600
    path.write_bytes(damaged)
    store = opened(path)
    with pytest.raises(StoreDamaged):
        await store.find(Received)
    await store.close()


async def test_a_version_1_file_is_opened(path: Path, samples: Any) -> None:
    """A file as the first release makes it is taken, by its own statements in tests/cases/store/version-1.sql."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    connection.close()
    store = opened(path)
    await store.commit(Changeset(insert=(samples.received(),), jobs=(samples.job(),), audit=(samples.audit(),)))
    assert await store.get(Received, id="r1") is not None
    await store.close()


def test_version_1_is_what_is_created() -> None:
    """The present schema is version-1.sql plus the steps.

    If a record changed: before the first release, regenerate the file by
    `python -m tests.server.store.sqlite.test_sqlite_file`; after it, add a step to migrations.STEPS instead.
    """
    by_steps, at_once = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    by_steps.executescript(VERSION_1.read_text(encoding="utf-8"))
    for statement in (statement for step in migrations.STEPS for statement in step):
        by_steps.execute(statement)
    for statement in create_all():
        at_once.execute(statement)
    shapes = [_shape(by_steps), _shape(at_once)]
    by_steps.close()
    at_once.close()
    assert shapes[0] == shapes[1]


def _shape(connection: sqlite3.Connection) -> dict[str, Any]:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    shape = {name: sorted(row[1:4] for row in connection.execute(f"PRAGMA table_info({name})")) for (name,) in names}
    others = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type != 'table' AND sql IS NOT NULL")
    return shape | dict(others.fetchall())


async def test_an_older_file_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of version 1 takes the steps it lacks, once, and keeps its rows."""
    first = opened(path)
    await first.commit(Changeset(insert=(Remembered(participant_id="p", name="n", value="v"),)))
    await first.close()
    steps = [("CREATE TABLE later (a INTEGER) STRICT", "INSERT INTO later VALUES (1)")]
    monkeypatch.setattr(migrations, "STEPS", steps)
    for _ in range(2):
        second = opened(path)
        assert await second.count(Remembered) == 1
        await second.close()
    assert ask(path, "SELECT count(*) FROM later") == (1,)
    assert ask(path, "PRAGMA user_version") == (2,)


def test_a_step_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is all or nothing: the file stays at its version."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    connection.close()
    monkeypatch.setattr(migrations, "STEPS", [("CREATE TABLE later (a)", "INSERT INTO nowhere VALUES (1)")])
    with pytest.raises(sqlite3.OperationalError):
        opened(path)
    assert ask(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'later'") == (0,)
    assert ask(path, "PRAGMA user_version") == (1,)


async def test_a_newer_file_is_left_alone(path: Path) -> None:
    """A file of a newer release is refused, not guessed at."""
    await opened(path).close()
    ask(path, "PRAGMA user_version = 99")
    with pytest.raises(BadConfiguration, match="newer release"):
        opened(path)


async def test_a_file_of_other_columns_is_refused(path: Path) -> None:
    """A table that differs from the records is told at opening, with the column."""
    await opened(path).close()
    ask(path, "ALTER TABLE remembered ADD COLUMN mood TEXT")
    with pytest.raises(StoreDamaged, match="remembered differs from this release's in: mood"):
        opened(path)


@pytest.mark.parametrize("sql", ["DELETE FROM audit", "UPDATE audit SET agent = 'x'"])
async def test_the_file_itself_bars_changes_of_the_audit(path: Path, samples: Any, sql: str) -> None:
    """Other programs too can not change append-only rows by mistake."""
    store = opened(path)
    await store.commit(Changeset(audit=(samples.audit(),)))
    await store.close()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        ask(path, sql)


async def test_a_held_file_is_waited_for(path: Path, samples: Any) -> None:
    """While another process holds the write lock a commit waits, and reads go on."""
    import asyncio

    store = opened(path)
    await store.commit(Changeset(insert=(samples.received("r1"),)))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(store.commit(Changeset(insert=(samples.received("r2"),))))
    await asyncio.sleep(0.05)
    assert await store.get(Received, id="r1") is not None
    assert not commit.done()
    holder.execute("COMMIT")
    holder.close()
    await commit
    await store.close()


async def test_a_file_held_too_long_is_unavailable(path: Path, samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer does not wait for ever, and goes on when the file is free."""
    from server.store.sqlite import writer

    monkeypatch.setattr(writer, "BUSY_SECONDS", 0.05)
    store = opened(path)
    await store.commit(Changeset(insert=(samples.received("r1"),)))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process"):
        await store.commit(Changeset(insert=(samples.received("r2"),)))
    holder.close()
    await store.commit(Changeset(insert=(samples.received("r2"),)))
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where the machine lets one be made."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if not mount or not unmount or os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("this machine mounts no tmpfs")
    yield folder
    subprocess.run([unmount, str(folder)], check=True)


async def test_a_full_disk_is_unavailable_and_no_more(small_disk: Path, tmp_path: Path, samples: Any) -> None:
    """On a full disk commits are refused as temporary, nothing acknowledged is lost, and space lets it go on."""
    generate_master_key(tmp_path / "master.key")
    filler = small_disk / "filler"
    store = open_store(f"sqlite:///{small_disk}/access.db", tmp_path / "master.key")
    await store.commit(Changeset(insert=(samples.received("first"),)))
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 60_000))
    written = ["first"]

    async def fill() -> None:
        for number in range(100):
            await store.commit(Changeset(insert=(samples.received(f"r{number}", body=b"x" * 3000),)))
            written.append(f"r{number}")

    with pytest.raises(StoreUnavailable, match="disk is full"):
        await fill()
    filler.unlink()
    await store.commit(Changeset(insert=(samples.received("last"),), audit=(samples.audit(),)))
    assert {row.id for row in await store.find(Received)} == {*written, "last"}
    assert (await store.verify_audit()).broken_at is None
    await store.close()


class FailingConnection:
    """A connection whose next COMMIT fails as if the disk had."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT" and self.failures:
            self.failures -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self.connection.execute(sql, *values)


async def test_after_a_failed_sync_nothing_is_taken(path: Path, samples: Any) -> None:
    """Once the disk failed, no commit is acknowledged any more, though the next would succeed (reliability C6)."""
    store: Any = opened(path)
    await store.commit(Changeset(insert=(samples.received("before"),)))
    store._writer._connection = FailingConnection(store._writer._connection)
    store._writer._connection.failures = 1
    with pytest.raises(StoreUnavailable):
        await store.commit(Changeset(insert=(samples.received("lost"),)))
    with pytest.raises(StoreUnavailable, match="started again"):
        await store.commit(Changeset(insert=(samples.received("after"),)))
    assert [row.id for row in await store.find(Received)] == ["before"]
    await store.close()


def write_version_1() -> None:
    """Writes the present schema down as version 1."""
    lines = ["-- The schema as the first release creates it: never edited after that release."]
    lines += [f"{statement};" for statement in create_all()]
    lines += [f"PRAGMA application_id = {migrations.APPLICATION_ID};", "PRAGMA user_version = 1;"]
    VERSION_1.parent.mkdir(parents=True, exist_ok=True)
    VERSION_1.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_version_1()
