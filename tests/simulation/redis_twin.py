"""Redis in memory: hashes, sorted sets, scripts in a real Lua 5.1, TIME on virtual time.

As much of it as the gate uses, under a contract test against the real server (test_twins.py).
What the fence is about is here as it is there: scripts live in one server process and are neither
persisted nor replicated, and a replication id belongs to one term of one master. Every write goes
to a journal, of which a restart may lose the tail and a replica may lag behind.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from tests.simulation import lua

Write = tuple[str, str, str, Any]  # what, key, field, value
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Node:
    """One Redis process: its data, its journal, its scripts, its replication id."""

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        replication_id: str,
        second: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.name = name
        self._clock, self._second = clock, second
        self.replication_id = replication_id
        self.data: dict[str, dict[str, Any]] = {}
        self.kinds: dict[str, str] = {}
        self.journal: list[tuple[float, list[Write]]] = []  # one entry a command, with the world's second
        self.scripts: dict[str, str] = {}
        self.once: dict[str, str] = {}  # every script that was ever loaded, for planted bugs
        self.full = False
        self._writes: list[Write] = []

    def replay(self, journal: Iterable[tuple[float, list[Write]]]) -> None:
        """Becomes what the journal says: a restart from it, or a replica that has received so much."""
        self.data, self.kinds, self.journal = {}, {}, list(journal)
        for _, writes in self.journal:
            for what, key, field, value in writes:
                self._apply(what, key, field, value)

    def execute(self, *command: Any) -> Any:
        """One command as a client sends it. Raises ResponseError and its kin."""
        name, *arguments = command
        arguments = [_text(argument) for argument in arguments]
        # redis-py sends "SCRIPT LOAD" as one name.
        words = str(name).upper().split()
        if words[0] in ("EVAL", "EVALSHA"):
            return self._evaluate(words[0], arguments)
        if self.full and words[0] in _WRITING:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        try:
            kind, *values = self._call("_".join(words), arguments)
        finally:
            self._journal()
        if kind == "error":
            raise ResponseError(values[0])
        return (
            [None if value is False else value for value in values]
            if kind == "list"
            else (None if values[0] is False else values[0])
        )

    def _evaluate(self, name: str, arguments: list[str]) -> Any:
        text, keys, *rest = arguments
        if name == "EVALSHA":
            known = self.scripts.get(text.lower())
            if known is None:
                raise NoScriptError("No matching script. Please use EVAL.")
            text = known
        else:
            self.scripts[hashlib.sha1(text.encode()).hexdigest()] = text
        if self.full and "allow-oom" not in text.split("\n", 1)[0]:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        try:
            return lua.from_lua(lua.run(self._called, lua.chunk(text), int(keys), *rest))
        finally:
            self._journal()

    def _called(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        return self._call(name.upper(), [_text(argument) for argument in arguments])

    def _journal(self) -> None:
        if self._writes:
            self.journal.append((self._second(), self._writes))
            self._writes = []

    def _call(self, name: str, arguments: list[str]) -> tuple[Any, ...]:
        command = getattr(self, f"_{name.lower()}", None)
        if command is None:
            return "error", f"ERR unknown command '{name}'"
        try:
            reply: tuple[Any, ...] = command(*arguments)
        except _WrongType:
            return "error", WRONG_TYPE
        return reply

    def _write(self, what: str, key: str, field: str = "", value: Any = None) -> None:
        self._writes.append((what, key, field, value))
        self._apply(what, key, field, value)

    def _apply(self, what: str, key: str, field: str, value: Any) -> None:
        if what == "flush":
            self.data.clear()
            self.kinds.clear()
        elif what == "drop":
            self.data.pop(key, None)
            self.kinds.pop(key, None)
        elif what == "remove":
            content = self.data[key]
            del content[field]
            if not content:
                del self.data[key], self.kinds[key]
        else:
            self.kinds[key] = what
            self.data.setdefault(key, {})[field] = value

    def _content(self, kind: str, key: str) -> dict[str, Any]:
        if self.kinds.get(key, kind) != kind:
            raise _WrongType
        return self.data.get(key) or {}

    # Each command replies with the kind of its reply and the values.

    def _ping(self) -> tuple[Any, ...]:
        return "one", "PONG"

    def _time(self) -> tuple[Any, ...]:
        now = self._clock()
        return "list", str(int(now)), str(int(now % 1 * 1_000_000))

    def _info(self, *sections: str) -> tuple[Any, ...]:
        return "one", f"# Replication\r\nrole:master\r\nmaster_replid:{self.replication_id}\r\n"

    def _exists(self, *keys: str) -> tuple[Any, ...]:
        return "one", sum(key in self.data for key in keys)

    def _del(self, *keys: str) -> tuple[Any, ...]:
        there = [key for key in dict.fromkeys(keys) if key in self.data]
        for key in there:
            self._write("drop", key)
        return "one", len(there)

    def _flushall(self, *how: str) -> tuple[Any, ...]:
        self._write("flush", "")
        return "status", "OK"

    def _hget(self, key: str, field: str) -> tuple[Any, ...]:
        return "one", self._content("hash", key).get(field, False)

    def _hmget(self, key: str, *fields: str) -> tuple[Any, ...]:
        content = self._content("hash", key)
        return ("list", *[content.get(field, False) for field in fields])

    def _hgetall(self, key: str) -> tuple[Any, ...]:
        return ("list", *[part for pair in self._content("hash", key).items() for part in pair])

    def _hvals(self, key: str) -> tuple[Any, ...]:
        return ("list", *self._content("hash", key).values())

    def _hkeys(self, key: str) -> tuple[Any, ...]:
        return ("list", *self._content("hash", key))

    def _hlen(self, key: str) -> tuple[Any, ...]:
        return "one", len(self._content("hash", key))

    def _hscan(self, key: str, cursor: str, *options: str) -> tuple[Any, ...]:
        content = self._content("hash", key)
        return "list", "0", [part for pair in content.items() for part in pair]

    def _hexists(self, key: str, field: str) -> tuple[Any, ...]:
        return "one", int(field in self._content("hash", key))

    def _hset(self, key: str, *pairs: str) -> tuple[Any, ...]:
        if len(pairs) % 2 or not pairs:
            return "error", "ERR wrong number of arguments for 'hset' command"
        new = 0
        for field, value in zip(pairs[::2], pairs[1::2], strict=True):
            new += field not in self._content("hash", key)
            self._write("hash", key, field, value)
        return "one", new

    def _hsetnx(self, key: str, field: str, value: str) -> tuple[Any, ...]:
        if field in self._content("hash", key):
            return "one", 0
        self._write("hash", key, field, value)
        return "one", 1

    def _hdel(self, key: str, *fields: str) -> tuple[Any, ...]:
        there = [field for field in dict.fromkeys(fields) if field in self._content("hash", key)]
        for field in there:
            self._write("remove", key, field)
        return "one", len(there)

    def _hincrby(self, key: str, field: str, amount: str) -> tuple[Any, ...]:
        try:
            value = int(self._content("hash", key).get(field, "0")) + int(amount)
        except ValueError:
            return "error", "ERR value is not an integer or out of range"
        self._write("hash", key, field, str(value))
        return "one", value

    def _zadd(self, key: str, *pairs: str) -> tuple[Any, ...]:
        new = 0
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            new += member not in self._content("zset", key)
            self._write("zset", key, member, float(score))
        return "one", new

    def _zrem(self, key: str, *members: str) -> tuple[Any, ...]:
        there = [member for member in dict.fromkeys(members) if member in self._content("zset", key)]
        for member in there:
            self._write("remove", key, member)
        return "one", len(there)

    def _zcard(self, key: str) -> tuple[Any, ...]:
        return "one", len(self._content("zset", key))

    def _zscore(self, key: str, member: str) -> tuple[Any, ...]:
        score = self._content("zset", key).get(member)
        return "one", False if score is None else f"{score:.17g}"

    def _zrange(self, key: str, low: str, high: str, *options: str) -> tuple[Any, ...]:
        ranked = sorted((score, member) for member, score in self._content("zset", key).items())
        given = [option.upper() for option in options]
        if "BYSCORE" in given:
            found = [member for score, member in ranked if float(low) <= score <= float(high)]
            if "LIMIT" in given:
                first, most = (int(option) for option in options[given.index("LIMIT") + 1 :][:2])
                found = found[first:] if most < 0 else found[first : first + most]
        else:
            first, last = int(low), int(high)
            found = [member for _, member in ranked][first : None if last == -1 else last + 1]
        return ("list", *found)

    def _script_load(self, text: str) -> tuple[Any, ...]:
        lua.chunk(text)
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.scripts[sha] = self.once[sha] = text
        return "one", sha

    def _script_exists(self, *shas: str) -> tuple[Any, ...]:
        return ("list", *[int(sha in self.scripts) for sha in shas])

    def _script_flush(self, *how: str) -> tuple[Any, ...]:
        self.scripts.clear()
        return "status", "OK"


class _WrongType(Exception):
    pass


_WRITING = {"HSET", "HSETNX", "HINCRBY", "ZADD"}


def _text(value: Any) -> str:
    """An argument as Redis sees it: bytes on the wire; numbers of Lua with 17 digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    return f"{value:.17g}" if isinstance(value, float) else str(value)
