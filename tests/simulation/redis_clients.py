"""redis-py's own commands over the twin: only the socket is replaced.

Both clients inherit every command and every conversion of redis-py, so that the production code
meets the same types and exceptions as with a real connection.
"""

from collections.abc import Callable
from typing import Any

import redis
from redis._parsers.response_callbacks import get_response_callbacks
from redis.commands.core import AsyncCoreCommands, CoreCommands

from tests.simulation.loop import Process
from tests.simulation.network import Network, Server
from tests.simulation.processes import AsyncProcess, SyncProcess
from tests.simulation.redis_twin import Node

SOCKET_SECONDS = 2.0  # of gate.connect(): a client that waits longer gives up
_CALLBACKS = get_response_callbacks(None, True)


class RedisServer(Server):
    """What clients reach under the gate's address: the node that is master now, for most of them."""

    def __init__(
        self, master: Node, granted: Callable[[Process, Node, list[Any], tuple[Any, ...]], None]
    ) -> None:
        super().__init__("redis")
        self.master = master
        self.granted = granted  # is told of every verdict
        self.deluded: dict[str, Node] = {}  # who still talks to a master of before: split brain

    def node(self, process: Process) -> Node:
        return self.deluded.get(process.name, self.master)


def _answer(node: Node, command: tuple[Any, ...], options: dict[str, Any]) -> Any:
    reply = node.execute(*command)
    name = command[0].upper()
    if name == "HGETALL":  # a map on the wire of RESP3
        return dict(zip(reply[::2], reply[1::2], strict=True))
    if name == "ZSCORE":  # a number there
        return None if reply is None else float(reply)
    callback = _CALLBACKS.get(name)
    return callback(reply, **options) if callback else reply


def _all(node: Node, commands: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    replies: list[Any] = []
    for command, options in commands:
        try:
            replies.append(_answer(node, command, options))
        except redis.ResponseError as error:
            replies.append(error)
    return replies


class Direct(CoreCommands):
    """A client without a wire, for the contract test and for the checks after a run."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def execute_command(self, *command: Any, **options: Any) -> Any:
        return _answer(self._node, command, options)


class _Wire:
    def __init__(self, network: Network, server: RedisServer, process: Process) -> None:
        self._network, self._server, self._process = network, server, process

    def send(
        self, commands: list[tuple[tuple[Any, ...], dict[str, Any]]], answer: Callable[[Any], None]
    ) -> None:
        def perform(done: Callable[[Any], None]) -> None:
            node = self._server.node(self._process)
            replies = _all(node, commands)
            for (command, _), reply in zip(commands, replies, strict=True):
                if command[0] == "EVALSHA" and isinstance(reply, list):
                    self._server.granted(self._process, node, reply, command[3 + int(command[2]) :])
            done(replies)

        self._network.request(self._process, self._server, perform, answer, redis.ConnectionError)


class SyncRedis(CoreCommands):
    """`redis.Redis` of a synchronous process."""

    def __init__(self, network: Network, server: RedisServer, process: SyncProcess) -> None:
        self._wire, self._process = _Wire(network, server, process), process

    def execute_command(self, *command: Any, **options: Any) -> Any:
        reply = self.exchange([(command, options)])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def exchange(self, commands: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        replies = self._process.wait(lambda answer: self._wire.send(commands, answer), SOCKET_SECONDS)
        if replies is None:
            raise redis.TimeoutError("Timeout reading from socket")
        return replies

    def pipeline(self, transaction: bool = True) -> "SyncPipeline":
        return SyncPipeline(self)

    def close(self) -> None:
        pass


class SyncPipeline(CoreCommands):
    def __init__(self, client: SyncRedis) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self._commands.append((command, options))
        return self

    def execute(self) -> list[Any]:
        return _good(self._client.exchange(self._commands))

    def __enter__(self) -> "SyncPipeline":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class AsyncRedis(AsyncCoreCommands):
    """`redis.asyncio.Redis` of a web process. It has no deadline of its own, as the Turnstile wants it."""

    def __init__(self, network: Network, server: RedisServer, process: AsyncProcess) -> None:
        self._wire, self._process = _Wire(network, server, process), process

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        reply = (await self.exchange([(command, options)]))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def exchange(self, commands: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        future = self._process.create_future()

        def answer(value: Any) -> None:
            if future.done():
                return  # given up: redis-py has dropped the connection
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)

        self._wire.send(commands, answer)
        return await future

    def pipeline(self, transaction: bool = True) -> "AsyncPipeline":
        return AsyncPipeline(self)

    async def aclose(self) -> None:
        pass


class AsyncPipeline(AsyncCoreCommands):
    def __init__(self, client: AsyncRedis) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self._commands.append((command, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies = await self._client.exchange(self._commands)
        return _good(replies) if raise_on_error else replies


def _good(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
