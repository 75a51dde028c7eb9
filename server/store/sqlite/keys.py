"""The participants' data keys: read from the file, kept in memory unwrapped, made on first use."""

import sqlite3
from typing import Final

from server.domain.errors import StoreDamaged
from server.store.crypto import DataKey, MasterKey
from server.store.sqlite.writer import Transaction

_KEY_ID: Final = 1
_READ: Final = 'SELECT "key_id", "wrapped" FROM "data_key" WHERE "participant_id" = ? ORDER BY "key_id" DESC LIMIT 1'
_WRITE: Final = 'INSERT INTO "data_key" VALUES (?, ?, ?)'
_CHECK_NAME: Final = "master_key_check"
# Only where nothing was ever sealed: a file that lost its mark is not given a new one.
_LEAVE_CHECK: Final = (
    'INSERT OR IGNORE INTO "store_meta" SELECT ?, ? '
    'WHERE NOT EXISTS (SELECT 1 FROM "store_meta") AND NOT EXISTS (SELECT 1 FROM "data_key")'
)


class KeyRing:
    """Data keys by participant. Several threads may read it at once."""

    def __init__(self, master: MasterKey) -> None:
        self._master = master
        self._keys: dict[str, DataKey] = {}

    def get(self, participant_id: str) -> DataKey | None:
        """The key if it is in memory."""
        return self._keys.get(participant_id)

    def load(self, connection: sqlite3.Connection | sqlite3.Cursor, participant_id: str) -> DataKey | None:
        """The key from memory or file, or None if that participant has none yet."""
        if participant_id in self._keys:
            return self._keys[participant_id]
        row = connection.execute(_READ, (participant_id,)).fetchone()
        if row is None:
            return None
        return self._keys.setdefault(participant_id, self._master.unwrap(row[1], participant_id, row[0]))

    def ensure(self, transaction: Transaction, participant_id: str) -> None:
        """Makes the key in the file if it is not there, and with it an empty, signed audit chain.

        So a key without a chain shows that somebody removed the chain.
        """
        cursor = transaction.cursor
        if cursor.execute(_READ, (participant_id,)).fetchone() is None:
            wrapped = self._master.new_wrapped(participant_id, _KEY_ID)
            cursor.execute(_WRITE, (participant_id, _KEY_ID, wrapped))
            transaction.sign(participant_id, self._master.unwrap(wrapped, participant_id, _KEY_ID))


def check_master_key(connection: sqlite3.Connection, master: MasterKey) -> None:
    """Compares the key with the one that made the file, or leaves its mark in a new file. Raises StoreDamaged."""
    connection.execute(_LEAVE_CHECK, (_CHECK_NAME, master.check))
    row = connection.execute('SELECT "value" FROM "store_meta" WHERE "name" = ?', (_CHECK_NAME,)).fetchone()
    if row is None or not master.fits(row[0]):
        raise StoreDamaged(
            "the master key is not the one this store was made with: put the right file at [store] key_file; "
            "nothing was read or changed"
        )
