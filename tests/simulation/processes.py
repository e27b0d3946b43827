"""The two kinds of processes: asynchronous (a web worker) and synchronous (everything else).

A web worker is an asyncio loop of its own, so that killing or freezing it stops every task of it
and no other. A consumer, a gatekeeper or an operator's command is a greenlet: its code blocks, as
the shipped code does, and the world goes on meanwhile.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from tests.simulation.loop import Process, Scheduler


class AsyncProcess(Process, asyncio.AbstractEventLoop):
    """A process that is an asyncio loop: as much of one as the production code uses."""

    def __init__(self, scheduler: Scheduler, name: str, failed: Callable[[str], None]) -> None:
        super().__init__(scheduler, name)
        self._failed = failed
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self.scheduler.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a killed process says nothing
        self._tasks.append(task)
        return task

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.scheduler.at(0, self._run, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.scheduler.at(when, self._timer, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.scheduler.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(f"{self.name}: {context.get('message')} {context.get('exception')!r}")

    def _timer(self, handle: asyncio.Handle) -> None:
        self.expire(self._execute, handle)

    def _run(self, handle: asyncio.Handle) -> None:
        self.enter(self._execute, handle)

    def _execute(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    def run_here(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Enters from outside with the loop running, as a request that has been received does."""
        self.enter(self._run_here, callback, arguments)

    def _run_here(self, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        asyncio._set_running_loop(self)
        try:
            callback(*arguments)
        finally:
            asyncio._set_running_loop(None)

    def abandon(self) -> None:
        """Closes what is left of its coroutines, at the end of the world; no wire answers any more."""
        self.alive = False
        for task in self._tasks:
            if not task.done():
                coroutine: Any = task.get_coro()
                with suppress(BaseException):  # a finally block that met a dead wire
                    coroutine.close()
        self._tasks.clear()


class SyncProcess(Process):
    """A process that is one thread of control: `main` runs in a greenlet until it ends or is killed."""

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        main: Callable[[], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(scheduler, name)
        self._main, self._ended = main, ended
        self._greenlet = greenlet(self._body)
        self._waiting = 0
        self.on_death.append(self._unwind)

    def start(self) -> None:
        self.enter(self._greenlet.switch)

    def _body(self) -> None:
        error: BaseException | None = None
        try:
            self._main()
        except GreenletExit:
            return
        except Exception as raised:
            error = raised
        if self.alive:
            self.kill()
            self._ended(error)

    def _unwind(self) -> None:
        # A process that kills itself at a wire raises there (see `die`); from outside it is thrown at it.
        if getcurrent() is not self._greenlet and not self._greenlet.dead:
            self._greenlet.throw(GreenletExit)

    def die(self) -> None:
        """Every wire of a dead process ends here, so that no finally block has an effect."""
        raise GreenletExit

    def wait(self, begin: Callable[[Callable[[Any], None]], None], timeout: float | None = None) -> Any:
        """Blocks until `begin`'s callback is called with a value; None after the timeout (seconds).

        An exception that is the value is raised. Late values are dropped.
        """
        if not self.alive:
            self.die()
        self._waiting += 1
        ticket = self._waiting

        def answer(value: Any, timer: bool = False) -> None:
            if ticket == self._waiting:
                (self.expire if timer else self.enter)(self._resume, ticket, value)

        begin(answer)
        event = None if timeout is None else self.scheduler.after(timeout, answer, None, True)
        value = self.scheduler_greenlet().switch()
        if event is not None:
            event.cancelled = True
        if not self.alive:
            self.die()
        if isinstance(value, Exception):
            raise value
        return value

    def scheduler_greenlet(self) -> greenlet:
        parent = self._greenlet.parent
        assert parent is not None
        return parent

    def _resume(self, ticket: int, value: Any) -> None:
        if ticket == self._waiting:
            self._waiting += 1
            self._greenlet.switch(value)

    def sleep(self, seconds: float) -> None:
        self.wait(lambda answer: None, seconds)
