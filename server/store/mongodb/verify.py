"""Walking the audit chains, a bounded stretch at a time, each stretch in one snapshot."""

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from server.domain.audit import AuditEntry
from server.store import chain
from server.store.crypto import DataKey
from server.store.mongodb.documents import Document, documents_of, key_text
from server.store.mongodb.layout import AUDIT_HEAD, DATA_KEY

_audit = documents_of(AuditEntry)


async def chains(database: AsyncDatabase[Document]) -> list[str]:
    """Every participant that has, or should have, a chain."""
    found: set[str] = set()
    for name in (DATA_KEY, AUDIT_HEAD, _audit.name):
        found |= set(await database[name].distinct("participant_id"))
    return sorted(found)


async def walk(
    session: AsyncClientSession, database: str, *, participant_id: str, key: DataKey | None, head: chain.Head
) -> chain.Stretch:
    """Follows the next rows after `head`; at the last one compares the signed end."""
    client: AsyncMongoClient[Document] = session.client
    wanted = {"participant_id": participant_id, "_id": _behind(participant_id, head.sequence)}
    cursor = client[database][_audit.name].find(wanted, session=session).sort([("_id", 1)]).limit(chain.STRETCH)
    rows = [_audit.values(document) for document in await cursor.to_list()]
    end = await client[database][AUDIT_HEAD].find_one({"_id": key_text([participant_id])}, session=session)
    reached, broken = chain.follow(head, rows)
    ended = len(rows) < chain.STRETCH
    if broken is None and ended:
        signed = chain.Signed(end["sequence"], end["hash"], bytes(end["signature"])) if end else None
        broken = chain.missing_at_end(participant_id, reached, signed, key)
    return chain.Stretch(reached, broken, ended)


def _behind(participant_id: str, sequence: int) -> Document:
    return {"$gt": key_text([participant_id, sequence]), "$lt": key_text([participant_id]) + "\x02"}
