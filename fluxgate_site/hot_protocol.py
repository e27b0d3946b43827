"""uvicorn's HTTP/1.1 with the hot door in it.

A request that has arrived whole, by itself, in plain HTTP/1.1 is answered from here. Whatever is
different in any way goes on as in stock uvicorn, with all that has been read of it: bodies in pieces,
chunked ones, `Expect`, `Upgrade`, headers that come twice, requests that wait behind another one,
clients that do not read. So only one kind of request has two implementations.
"""

import asyncio
import types
from typing import Any

from fluxgate_site.protocol import Protocol
from sales.request_id import asking

BODY_BYTES = 4096


class _Nobody:
    """Nobody waits for messages of a hot request."""

    def set(self) -> None:
        pass


class HotCycle:
    """A hot request and its response, as far as uvicorn asks its own cycle for it."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    message_event = _Nobody()

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False


class HotProtocol(Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.door = _door(self.app)
        self._found: tuple[Any, dict[bytes, bytes]] | None = None  # a request whose body is awaited
        self._body: list[bytes] = []
        self._quiet_since: float | None = None  # on the loop's clock; None: a request is under way
        self._stock = bool(self.root_path or self.access_log or self.limit_concurrency)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._found is not None:  # the rest of its body is still on its way
            body, self._found = self._body, None
            if not self.transport.is_closing():
                self._go_the_stock_way()
                for piece in body:
                    super().on_body(piece)

    # uvicorn cancels and makes a timer for every request; this one looks now and then whether to go off.

    def _unset_keepalive_if_required(self) -> None:
        self._quiet_since = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._quiet_since is None or self.transport.is_closing():
            return
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_after(left)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and not (self._stock or self.flow.write_paused):
            route = self.door.route(self.parser.get_method(), self.url)
            if route is not None:
                fields = dict(self.headers)
                if len(fields) == len(self.headers) and _plain(fields) and self._is_of_today(fields):
                    self._found, self._body = (route, fields), []
                    return
        self._go_the_stock_way()

    def _is_of_today(self, fields: dict[bytes, bytes]) -> bool:
        """HTTP/1.1: the only version that keeps a connection without being told to."""
        if b"connection" not in fields and self.parser.should_keep_alive():
            return True
        return self.parser.get_http_version() == "1.1"

    def on_body(self, body: bytes) -> None:
        if self._found is not None:
            self._body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._found is None:
            super().on_message_complete()
            return
        (route, fields), self._found = self._found, None
        body = b"".join(self._body)
        keep_alive = self.parser.should_keep_alive() and not self.last
        if (
            keep_alive
            and route.method == "POST"
            and (again := self.door.echoes.find(self.app_state, self.url, fields, body)) is not None
        ):
            self.transport.write(again)
            self.on_response_complete()
            return
        cycle = self.cycle = HotCycle(keep_alive)  # type: ignore[assignment]
        scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": route.method,
            "path": route.path,
            "raw_path": self.url,
            "query_string": b"",
            "headers": self.headers,
            "state": self.app_state,
        }
        answering = self.door.start(route, scope, fields, body)
        asking.set(fields)  # whatever is awaited from here on takes it along
        # Most refusals are known at once; only what has to wait becomes a task.
        try:
            awaited = answering.send(None)
        except StopIteration as end:
            sent = self.answer(cycle, end.value)
            if keep_alive:
                self.door.echoes.note(self.url, fields, body, end.value, sent)
        except Exception as error:
            self.answer(cycle, self.door.failed(error))
        else:
            running = Running(self, cycle, answering)
            if route.quick:
                self.tasks.add(running)  # type: ignore[arg-type]
                running.wait_for(awaited)
            else:
                task = self.loop.create_task(running.as_task(awaited))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        finally:
            asking.set(None)  # the context is the connection's: timers and later requests run in it

    def answer(self, cycle: HotCycle, response: Any) -> bytes:
        cycle.response_complete = True
        sent: bytes = self.door.write(
            response, self.server_state.default_headers, keep_alive=cycle.keep_alive
        )
        if not cycle.disconnected:
            self.transport.write(sent)
            if not cycle.keep_alive:
                self.transport.close()
        self.on_response_complete()
        return sent

    def _go_the_stock_way(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()


def _door(application: Any) -> Any:
    """The application's hot door, through whatever uvicorn has wrapped it in."""
    while not hasattr(application, "hot"):
        application = application.app
    return application.hot


def _plain(fields: dict[bytes, bytes]) -> bool:
    if b"transfer-encoding" in fields or b"expect" in fields or b"upgrade" in fields:
        return False
    return int(fields.get(b"content-length", 0)) <= BODY_BYTES


class Running:
    """A request that waits for something, after its coroutine was driven to the first wait.

    A quick operation awaits plain futures and nothing else, so it needs no task of asyncio: what is
    awaited calls back here. For uvicorn, which waits for its tasks at the end, it is one of them.
    """

    __slots__ = ("_awaited", "_coroutine", "_cycle", "_protocol")

    def __init__(self, protocol: HotProtocol, cycle: HotCycle, coroutine: Any) -> None:
        self._protocol, self._cycle, self._coroutine = protocol, cycle, coroutine
        self._awaited: Any = None

    def wait_for(self, awaited: Any) -> None:
        awaited._asyncio_future_blocking = False  # as asyncio's own tasks say that they have seen it
        self._awaited = awaited
        awaited.add_done_callback(self._go_on)

    def cancel(self, msg: str | None = None) -> None:
        self._awaited.cancel(msg)

    def _go_on(self, awaited: Any) -> None:
        try:
            self.wait_for(self._coroutine.send(None))
            return
        except StopIteration as end:
            response = end.value
        except (Exception, asyncio.CancelledError) as error:
            response = self._protocol.door.failed(error)
        self._protocol.tasks.discard(self)  # type: ignore[arg-type]
        self._protocol.answer(self._cycle, response)

    async def as_task(self, awaited: Any) -> None:
        try:
            response = await _resumed(self._coroutine, awaited)
        except Exception as error:
            response = self._protocol.door.failed(error)
        self._protocol.answer(self._cycle, response)


@types.coroutine
def _resumed(coroutine: Any, awaited: Any) -> Any:
    """Goes on with a coroutine that was driven to its first wait. What it returns, or raises."""
    try:
        while True:
            try:
                sent = yield awaited
            except BaseException as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(sent)
    except StopIteration as end:
        return end.value
