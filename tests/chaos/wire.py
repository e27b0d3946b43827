"""A TCP proxy that misbehaves on demand: refuse, cut, freeze, delay, swallow replies, point elsewhere.

All wires of a process live on one event loop in a thread of its own. The methods that change a wire
may be called from any thread and have taken effect when they return.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Loop:
    """An event loop in a thread. Opened by `Loop()`, closed by `close()`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine that runs on the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)


class Wire:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`."""

    def __init__(self, loop: Loop, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.replies = 0  # bytes of replies forwarded
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._swallowing = False
        self._reply_bytes_left: int | None = None
        loop.run(self._listen())

    def refuse(self) -> None:
        """Cuts every connection and refuses new ones, as a port without a server."""
        self._loop.run(self._refuse())

    def cut(self) -> None:
        """Cuts every connection; new ones are taken."""
        self._loop.run(self._do(self._cut))

    def freeze(self) -> None:
        """Nothing passes in either direction, nothing is cut: a cable that is pulled."""
        self._loop.run(self._do(self._flowing.clear))

    def swallow_replies(self) -> None:
        """Requests arrive, what the server answers is lost."""
        self._swallowing = True

    def cut_after(self, reply_bytes: int) -> None:
        """Cuts every connection in the middle of a reply, once so many bytes have passed from now on."""
        self._reply_bytes_left = reply_bytes

    def delay(self, seconds: float) -> None:
        """Each piece of a reply comes so much later."""
        self._delay = seconds

    def heal(self) -> None:
        """Connections whose bytes were lost are cut; from now on everything passes."""
        self._loop.run(self._heal())

    def point_to(self, target: int) -> None:
        """Leads elsewhere, as a virtual address that has moved: connections to the old server are cut."""
        self.target = target
        self.cut()

    def lead_new_to(self, target: int) -> None:
        """New connections go there; those to the old server stay, as at a load balancer that drains it."""
        self.target = target

    def close(self) -> None:
        self._loop.run(self._refuse())

    async def _do(self, change: Callable[[], None]) -> None:
        change()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, backlog=1024, limit=2**18
        )

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._flowing.set()  # whoever waits shall see that it is cut
        self._cut()
        await asyncio.sleep(0)

    async def _heal(self) -> None:
        if self._swallowing or self._reply_bytes_left is not None:
            self._cut()
        self._swallowing, self._reply_bytes_left, self._delay = False, None, 0.0
        self._flowing.set()
        if self._server is None:
            await self._listen()

    def _cut(self) -> None:
        for writer in list(self._connections):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            await self._flowing.wait()
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self.target, limit=2**18)
                self._connections.add(back)
                requests = asyncio.create_task(self._forward(reader, back, replies=False))
                try:
                    # A server that closes, or dies, ends both ways; a client that stops sending does not.
                    await self._forward(there, writer, replies=True)
                finally:
                    requests.cancel()
                    self._connections.discard(back)
                    back.transport.abort()
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if replies:
                    if self._swallowing:
                        continue
                    if self._delay:
                        await asyncio.sleep(self._delay)
                    if self._reply_bytes_left is not None:
                        data = data[: self._reply_bytes_left]
                        self._reply_bytes_left -= len(data)
                    self.replies += len(data)
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
                if replies and self._reply_bytes_left == 0:
                    self._cut()
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()
