"""The HTTP protocol of every door: uvicorn's, with four habits mended."""

from asyncio import Transport
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LAST_CALL_SECONDS = 0.5  # more than a busy client needs to hear an answer and ask again


class _Flow(FlowControl):
    """Reads nothing more while requests are waiting behind the one that is answered.

    uvicorn's own goes on reading whenever an application asks for its body and whenever an answer is
    complete: a client that sends without reading filled the memory, 2.7 KB a request (measured). Whoever
    stands before another request has the whole body already, so that nobody waits for ever.
    """

    def __init__(self, transport: Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, without four of its habits."""

    last = False  # SIGTERM has come: every answer from now on is the last one of its connection

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # The request keeps its own list. What comes now are the trailers of a chunked body: they pass by
        # whatever a proxy checks in the head, and RFC 9110, 6.5.1 forbids taking them for headers.
        self.headers = []
        if self.last:
            self.cycle.keep_alive = False

    def _unsupported_upgrade_warning(self) -> None:
        # The parser reads nothing behind a request with `Upgrade`: on a connection that is kept alive,
        # the next request would wait for ever.
        self.cycle.keep_alive = False

    def shutdown(self) -> None:
        # uvicorn closes an idle connection at once, with the next request in it that a busy client has
        # just sent: that one would see a reset. Whoever asks now is told that it was the last time.
        self.last = True
        if self._is_idle():
            self.loop.call_later(LAST_CALL_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()
