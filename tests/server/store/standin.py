"""A MongoDB stand-in for tests: nx-27017 behind a turnstile.

`standin.py --data-dir DIR --port PORT` (0: a free one); prints "ready PORT".

nx-27017 0.8.1 speaks MongoDB's protocol over SQLite. This program is the one place where its known differences from
MongoDB are made up for, so that the product needs to know MongoDB only:

 1. All clients share one SQLite connection, so two transactions at once are one: an abort rolls back what another
    client was told is committed, and everybody sees what is not committed yet. Here one transaction runs at a time, and
    all else waits. (So this peer shows no lock contention of its own accord; `faults` makes write conflicts.)
 2. A statement that failed leaves its transaction open; MongoDB aborts it. So does this.
 3. A commit for a transaction that is not known is an error without code or label. Here it is NoSuchTransaction with
    the label TransientTransactionError, or success if that transaction was committed before: the ids of committed ones
    are kept in the same SQLite transaction, as MongoDB keeps them in config.transactions.
 4. `hello` names no replica set, without which a driver retries nothing; here it does, with the time of the last write.
 5. A duplicate key is told in SQLite's words; here in MongoDB's (E11000, keyPattern).
 6. `findAndModify` swallows every error: refused here, so that the product can not use it unnoticed.
 7. A filter of `{field: null}` does not match a missing field, as it does in MongoDB: refused here likewise, with
    arrayFilters, updates by pipeline, $not, Decimal128 and positional array paths, all of which differ silently.
 8. A unique index counts rows that `partialFilterExpression` leaves out. But it counts no two missing fields as equal,
    so the product's indexes (fields are left out, never null) mean the same in both. Nothing to make up for.
 9. An insert that carries a readConcern stores that as a document too. It is taken off here.
10. A replacement that holds bytes fails; they are handed over in its own type.
11. A text that looks like a date is compared as one, to the second. Here texts are texts.
12. `{field: value}` also looks into arrays, which reads every row; we have none. `$eq` takes the index.
13. No authentication; no TLS. Both are tried against a real server only (`make test-mongodb`).
14. MongoDB keeps a transaction whose client is gone until transactionLifetimeLimitSeconds. Here it would bar everybody,
    not only who writes the same rows: so it ends at once, unless the fault `keep-open` says how many seconds it stays.

What it can not show: replication, elections, rollback of minority writes, real contention, the planner, real speed.
"""

import argparse
import asyncio
import logging
import re
import struct
import sys
import time
from typing import Any

from neosqlite.binary import Binary
from neosqlite.collection import datetime_utils
from nx_27017.handler import NeoSQLiteHandler
from nx_27017.wire_protocol import OP_MSG, OP_QUERY, ResponseBuilder

LIFETIME = 10.0  # seconds that a transaction may be idle; MongoDB's transactionLifetimeLimitSeconds is 60
TRANSIENT = "TransientTransactionError"
NO_SUCH_TRANSACTION = {
    "ok": 0,
    "code": 251,
    "codeName": "NoSuchTransaction",
    "errmsg": "no such transaction",
    "errorLabels": [TRANSIENT],
}
WRITE_CONFLICT = {
    "ok": 0,
    "code": 112,
    "codeName": "WriteConflict",
    "errmsg": "write conflict",
    "errorLabels": [TRANSIENT],
}
NOT_PRIMARY = {"ok": 0, "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}
TROUBLE = {"conflict": WRITE_CONFLICT, "not-primary": {**NOT_PRIMARY, "errorLabels": [TRANSIENT]}}
WRITES = frozenset({"insert", "update", "delete", "create", "createIndexes", "dropDatabase", "drop"})
REFUSED = re.compile(r"'\$not'|'arrayFilters'|Decimal128\(|: None[,}]|'findAndModify'|\.\d+'")
COMMITTED = 'CREATE TABLE IF NOT EXISTS "standin_committed" (lsid TEXT, number INTEGER, PRIMARY KEY (lsid, number))'


def _compare_texts_as_texts() -> None:
    """See 11."""
    datetime_utils.is_datetime_value = lambda value: False


class StandIn:
    """One server. All of it runs in the event loop's thread: a command is never interrupted."""

    def __init__(self, data_dir: str, port: int) -> None:
        self.handler = NeoSQLiteHandler(data_dir=data_dir)
        self.port = port
        self.turn = asyncio.Lock()
        self.owner: tuple[Any, ...] | None = None  # (lsid, number), connection, database
        self.seen = 0.0
        self.writes = int(time.time() * 1000)
        self.faults: dict[str, int] = {}  # "conflict", "not-primary", "lose-commit", ...: every n-th
        self.commands = 0

    async def answer(self, message: dict[str, Any], connection: object) -> dict[str, Any] | None:
        """The reply to one message; None cuts the connection."""
        body = next(doc for kind, doc in message["sections"] if kind == "body")
        if "hello" in body or "ismaster" in body or "isMaster" in body:
            return self._hello(message, body)
        if "standin" in body:
            self.faults = dict(body["standin"])
            return {"ok": 1, "commands": self.commands}
        self.commands += 1
        if bad := REFUSED.search(_questions(message["sections"])):
            return {"ok": 0, "code": 2, "errmsg": f"the stand-in and MongoDB differ about {bad.group()}"}
        number = (_lsid(body), body.get("txnNumber"))
        if body.get("autocommit") is not False:
            if not {"endSessions", "ping"} & set(body) and self._happens("stepped-down"):
                return {**NOT_PRIMARY, "errorLabels": ["RetryableWriteError"]} if WRITES & set(body) else NOT_PRIMARY
            async with self.turn:
                return self._run(message, body)
        if body.get("startTransaction"):
            await self._begin(number, connection, body["$db"])
            for fault, reply in TROUBLE.items():
                if self._happens(fault):
                    self._abort()
                    return reply
        if self.owner is None or self.owner[0] != number:
            return await self._not_owner(number, body)
        self.owner, self.seen = (number, connection, self.owner[2]), time.monotonic()
        if "commitTransaction" in body:
            return self._commit(message)
        if "abortTransaction" in body:
            self._abort()
            return {"ok": 1}
        reply = self._run(message, body)
        if reply.get("writeErrors") or not reply.get("ok"):
            self._abort()
        return reply

    async def _begin(self, number: Any, connection: object, database: str) -> None:
        await self.turn.acquire()
        self.owner, self.seen = (number, connection, database), time.monotonic()
        self._execute("BEGIN IMMEDIATE")

    async def _not_owner(self, number: Any, body: dict[str, Any]) -> dict[str, Any]:
        if "commitTransaction" in body:
            async with self.turn:
                for database in list(self.handler.databases):
                    connection = self.handler.get_database(database).db
                    connection.execute(COMMITTED)
                    sql = 'SELECT 1 FROM "standin_committed" WHERE lsid = ? AND number = ?'
                    if connection.execute(sql, number).fetchone():
                        return {"ok": 1}
        return dict(NO_SUCH_TRANSACTION)

    def _commit(self, message: dict[str, Any]) -> dict[str, Any] | None:
        assert self.owner is not None
        if self._happens("lose-commit"):
            self._abort()
            return None
        self._execute(COMMITTED)
        self._execute('INSERT INTO "standin_committed" VALUES (?, ?)', *self.owner[0])
        self._execute("COMMIT")
        self._end()
        self.writes += 1
        return None if self._happens("lose-answer") else {"ok": 1}

    def _abort(self) -> None:
        self._execute("ROLLBACK")
        self._end()

    def _end(self) -> None:
        self.owner = None
        self.turn.release()

    def _execute(self, sql: str, *values: Any) -> None:
        assert self.owner is not None
        self.handler.get_database(self.owner[2]).db.execute(sql, values)

    def _happens(self, fault: str) -> bool:
        every = self.faults.get(fault, 0)
        if not every:
            return False
        self.faults[f"{fault} so far"] = self.faults.get(f"{fault} so far", 0) + 1
        return self.faults[f"{fault} so far"] % every == 0

    def _run(self, message: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        for name in ("startTransaction", "autocommit", "txnNumber", "lsid", "readConcern", "$clusterTime"):
            body.pop(name, None)  # the transaction is the connection's own; readConcern: see 9
        for kind, part in message["sections"]:
            if kind in ("body", "payload"):
                part.update({"updates": _binary(part["updates"])} if "updates" in part else {})
            _plain_equality(part if isinstance(part, dict) else {})
        database = body.get("$db", "")  # nx-27017 takes it off
        try:
            run = self.handler.handle_insert if "insert" in body else self.handler.handle_command
            reply: dict[str, Any] = run(message)[1]
        except Exception as error:  # as nx-27017's own server has it
            reply = {"ok": 0, "errmsg": str(error)}
        if self.owner is None and WRITES & set(body):
            self.writes += 1
        for error in reply.get("writeErrors", ()):
            if error.get("code") == 11000:
                error.update(self._duplicate(error["errmsg"], database, body))
        if "listCollections" in body and reply.get("ok"):
            listed = reply["cursor"]["firstBatch"]
            reply["cursor"]["firstBatch"] = [each for each in listed if not each["name"].startswith("standin_")]
        return reply

    def _duplicate(self, text: str, database: str, body: dict[str, Any]) -> dict[str, Any]:
        """SQLite's words are `UNIQUE constraint failed: TABLE._id` or `...: index 'idx_TABLE_COLUMNS'`."""
        found = re.search(r"index '(\w+)'", text)
        pattern: dict[str, int] = {"_id": 1}
        if found:
            collection = self.handler.get_database(database)[body.get("insert") or body.get("update")]
            keys = collection.index_information()[found.group(1)]["key"]
            pattern = dict(keys)
        name = "_".join(f"{column}_{way}" for column, way in pattern.items())
        return {"keyPattern": pattern, "errmsg": f"E11000 duplicate key error index: {name} dup key: ..."}

    def _hello(self, message: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = self.handler.handle_command(message)[1]
        here = f"127.0.0.1:{self.port}"
        last = {"opTime": {"ts": self.writes, "t": 1}}
        return {**reply, "setName": "standin", "hosts": [here], "me": here, "primary": here, "lastWrite": last}

    def left(self, connection: object) -> None:
        """A client is gone, and its open transaction with it."""
        if self.owner is not None and self.owner[1] is connection and not self.faults.get("keep-open"):
            self._abort()

    async def watch(self) -> None:
        """Ends transactions that nobody goes on with."""
        while True:
            await asyncio.sleep(0.5)
            if self.owner is not None and time.monotonic() - self.seen > self.faults.get("keep-open", LIFETIME):
                self._abort()


def _lsid(body: dict[str, Any]) -> str:
    return bytes(body["lsid"]["id"]).hex() if "lsid" in body else ""


def _binary(value: Any) -> Any:
    """Bytes as an update of nx-27017 takes them; an insert takes them as they are."""
    if isinstance(value, dict):
        return {name: _binary(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_binary(each) for each in value]
    return Binary(value) if type(value) is bytes else value


def _plain_equality(part: dict[str, Any]) -> None:
    """See 12: in the filters of a command."""
    for name in ("updates", "deletes"):
        for statement in part.get(name, ()):
            statement["q"] = _equal(statement["q"])
    if isinstance(part.get("filter"), dict):
        part["filter"] = _equal(part["filter"])
    for stage in part.get("pipeline", ()):
        if "$match" in stage:
            stage["$match"] = _equal(stage["$match"])


def _equal(question: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"$eq": value} if isinstance(value, str | int) and name != "_id" else value
        for name, value in question.items()
    }


def _questions(sections: list[tuple[str, Any]]) -> str:
    """The filters, and the names of what comes with them."""
    found: list[Any] = []
    for kind, part in sections:
        statements = [one for name in ("updates", "deletes") for one in part.get(name, ())]
        found += [part.get("filter"), part.get("query")] if kind == "body" and "filter" in part else []
        found += [each for one in statements for each in (one["q"], *one)]
        found += [name for name in part if name == "findAndModify"]
    return repr([each for each in found if each is not None])


async def serve(standin: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client."""
    connection = object()
    try:
        while True:
            head = await reader.readexactly(16)
            length, request, _, opcode = struct.unpack("<iiii", head)
            data = head + await reader.readexactly(length - 16)
            if opcode == 2004:  # the first hello of some drivers
                message = {
                    "request_id": request,
                    "sections": [("body", {**OP_QUERY.parse(data)["query"], "$db": "admin"})],
                }
                reply = await standin.answer(message, connection)
                writer.write(ResponseBuilder.build_reply(request, request, [reply or {}]))
                continue
            reply = await standin.answer(OP_MSG.parse(data), connection)
            if reply is None:
                break
            writer.write(ResponseBuilder.build_op_msg_reply(0, request, reply))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        standin.left(connection)
        writer.close()


async def main() -> None:
    """Until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    _compare_texts_as_texts()
    standin = StandIn(given.data_dir, given.port)
    server = await asyncio.start_server(lambda r, w: serve(standin, r, w), "127.0.0.1", given.port, limit=2**26)
    standin.port = server.sockets[0].getsockname()[1]
    watching = asyncio.create_task(standin.watch())
    sys.stdout.write(f"ready {standin.port}\n")
    sys.stdout.flush()
    await server.serve_forever()
    await watching


if __name__ == "__main__":
    asyncio.run(main())
