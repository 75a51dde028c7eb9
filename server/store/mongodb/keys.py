"""The participants' data keys: read from the database, kept in memory unwrapped, made on first use."""

from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from server.store import chain
from server.store.crypto import DataKey, MasterKey
from server.store.mongodb.documents import key_text
from server.store.mongodb.faults import is_duplicate, translating
from server.store.mongodb.layout import AUDIT_HEAD, DATA_KEY
from server.store.mongodb.transactions import in_transaction

Document = dict[str, Any]
_KEY_ID: Final = 1


class KeyRing:
    """Data keys by participant."""

    def __init__(self, master: MasterKey) -> None:
        self._master = master
        self._keys: dict[str, DataKey] = {}

    async def load(self, client: AsyncMongoClient[Document], database: str, participant_id: str) -> DataKey | None:
        """The key from memory or database, or None if that participant has none yet."""
        if participant_id not in self._keys:
            with translating(DATA_KEY):
                found = await client[database][DATA_KEY].find_one(
                    {"participant_id": participant_id}, sort=[("_id", -1)]
                )
            if found is None:
                return None
            key = self._master.unwrap(bytes(found["wrapped"]), participant_id, found["key_id"])
            self._keys[participant_id] = key
        return self._keys[participant_id]

    async def ensure(self, client: AsyncMongoClient[Document], database: str, participant_id: str) -> DataKey:
        """The key, made if it is not there, and with it an empty, signed audit chain."""
        key = await self.load(client, database, participant_id)
        while key is None:
            try:
                await in_transaction(client, lambda session: self._make(session, database, participant_id))
            except PyMongoError as error:
                if not is_duplicate(error):  # else another process was first
                    with translating(DATA_KEY):
                        raise
            key = await self.load(client, database, participant_id)
        return key

    async def _make(self, session: AsyncClientSession, database: str, participant_id: str) -> None:
        wrapped = self._master.new_wrapped(participant_id, _KEY_ID)
        key = self._master.unwrap(wrapped, participant_id, _KEY_ID)
        row = {"participant_id": participant_id, "key_id": _KEY_ID, "wrapped": wrapped}
        keys, heads = session.client[database][DATA_KEY], session.client[database][AUDIT_HEAD]
        await keys.insert_one({"_id": key_text([participant_id, _KEY_ID]), **row}, session=session)
        await heads.insert_one(head_document(participant_id, chain.EMPTY, key), session=session)


def head_document(participant_id: str, head: chain.Head, key: DataKey) -> Document:
    """The signed end of a chain."""
    signature = chain.signature(participant_id, head, key)
    return {
        "_id": key_text([participant_id]),
        "participant_id": participant_id,
        **head._asdict(),
        "signature": signature,
    }
