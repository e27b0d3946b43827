"""PostgreSQL's sessions, transactions and failovers. What is asked in them stands in book_twin.py.

All writers share one lock from their first write to the end of their transaction; readers see what
is committed (READ COMMITTED). That is coarser than row locks and allows no history PostgreSQL would
not. A commit whose answer is lost has happened. A session that dies rolls back a little later.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, InterfaceError, OperationalError

from tests.simulation.loop import Process, Scheduler
from tests.simulation.network import Network, Server
from tests.simulation.processes import SyncProcess
from tests.simulation.tables import Tables

SILENCE_SECONDS, ASK_SECONDS = 10.0, 1.0  # of orders.leadership
PATIENCE_SECONDS = 8.0  # after which TCP gives a server up that does not answer


class Session:
    """One connection."""

    def __init__(self, term: int) -> None:
        self.term = term  # of the server that this connection is to
        self.work: Tables | None = None  # what an open transaction has changed
        self.in_transaction = self.failed = self.broken = False
        self.closed = False  # the server knows that nobody is at the other end


class Database(Server):
    """The server: the committed state, every earlier one, and who holds the lock."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__("postgresql")
        self.committed = Tables()
        self.commits: list[tuple[float, Tables]] = []
        self.term = 0
        self.scheduler = scheduler
        self._holder: Session | None = None
        self._leader: Session | None = None
        self._led_at = 0.0
        self._queue: deque[tuple[Session, Callable[[], None]]] = deque()

    def lock(self, session: Session, then: Callable[[], None]) -> None:
        if session.closed:
            return
        if self._holder in (None, session):
            self._holder = session
            then()
        else:
            self._queue.append((session, then))

    def end(self, session: Session, *, commit: bool) -> None:
        if commit and session.work is not None and session.term == self.term:
            self.commits.append((self.scheduler.now, self.committed))
            self.committed = session.work
        session.work = None
        session.in_transaction = session.failed = False
        if self._holder is session:
            self._holder = None
            while self._queue and self._holder is None:
                waiting, then = self._queue.popleft()
                if waiting.term == self.term and not waiting.closed:
                    self._holder = waiting
                    then()

    def lead(self, session: Session) -> bool:
        """The advisory lock of the gatekeepers: one session has it until it ends."""
        now, leader = self.scheduler.now, self._leader
        if (
            leader is None
            or leader.closed
            or leader.term != self.term
            or now - self._led_at > SILENCE_SECONDS
        ):
            self._leader = session
        if self._leader is session:
            self._led_at = now
        return self._leader is session

    def restart(self, lost_commits: int = 0) -> int:
        """Every session ends; with a failover the newest commits are gone. Returns how many."""
        self.term += 1
        self._holder, self._queue = None, deque()
        lost = min(lost_commits, len(self.commits))
        if lost:
            self.committed = self.commits[-lost][1]
            del self.commits[-lost:]
        return lost


class Connections:
    """The wires to the server, one session a process; each asks as the process that is running."""

    def __init__(self, scheduler: Scheduler, network: Network, server: Database, rng: random.Random) -> None:
        self.server = server
        self.scheduler, self._network, self._rng = scheduler, network, rng
        self._sessions: dict[Process, Session] = {}

    # The wire

    def _session(self, process: Process) -> Session:
        session = self._sessions.get(process)
        if session is None:
            session = self._sessions[process] = Session(self.server.term)
            process.on_death.append(lambda: self._left(process))
        return session

    def session(self) -> Session:
        """Of the process that is running."""
        process = self.scheduler.current
        assert process is not None
        return self._session(process)

    def _left(self, process: Process) -> None:
        session = self._sessions.pop(process, None)
        if session is not None:
            self.scheduler.after(self._rng.uniform(0, 1.5), self._rolled_back, session)

    def _rolled_back(self, session: Session) -> None:
        session.closed = True
        self.server.end(session, commit=False)

    def _ask(self, statement: Callable[[Tables], Any], *, write: bool = False, end: str = "") -> Any:
        process = self.scheduler.current
        assert isinstance(process, SyncProcess)
        session = self._session(process)
        if session.broken:
            raise InterfaceError("connection already closed")
        value = process.wait(
            lambda answer: self._network.request(
                process, self.server, lambda done: self._perform(session, statement, write, end, done),
                lambda value: answer(value if isinstance(value, Exception) else [value]), OperationalError,
            ),
            PATIENCE_SECONDS,
        )  # fmt: skip
        if value is None:
            value = OperationalError("server closed the connection unexpectedly: timed out")
            self._break(session)
            raise value
        return value[0]

    def ask(self, statement: Callable[[Tables], Any], *, write: bool = False) -> Any:
        """One statement. Raises OperationalError and InterfaceError."""
        process = self.scheduler.current
        try:
            return self._ask(statement, write=write)
        except OperationalError:
            if process in self._sessions:
                self._break(self._sessions[process])
            raise

    def _break(self, session: Session) -> None:
        if not session.broken:
            session.broken = True
            self.scheduler.after(self._rng.uniform(0, 2.0), self._rolled_back, session)

    def _perform(
        self,
        session: Session,
        statement: Callable[[Tables], Any],
        write: bool,
        end: str,
        done: Callable[[Any], None],
    ) -> None:
        server = self.server
        if session.term != server.term or session.closed:
            done(OperationalError("terminating connection due to administrator command"))
        elif end:
            done(self._end(session, commit=end == "commit" and not session.failed))
        elif session.failed:
            done(OperationalError("current transaction is aborted"))
        elif write:
            server.lock(session, lambda: done(self._write(session, statement)))
        else:
            done(self._apply(session, statement, session.work or server.committed))

    def _write(self, session: Session, statement: Callable[[Tables], Any]) -> Any:
        if session.work is None:
            session.work = self.server.committed.copy()
        value = self._apply(session, statement, session.work)
        if not session.in_transaction:
            return self._end(session, commit=not isinstance(value, Exception)) or value
        return value

    def _end(self, session: Session, *, commit: bool) -> Exception | None:
        error = None
        try:
            if commit and session.work is not None:
                session.work.check()
        except IntegrityError as found:
            error, commit = found, False
        self.server.end(session, commit=commit)
        return error

    def _apply(self, session: Session, statement: Callable[[Tables], Any], tables: Tables) -> Any:
        try:
            return statement(tables)
        except Exception as error:
            session.failed = session.in_transaction
            return error

    # orders.book

    @contextmanager
    def transaction(self) -> Iterator[None]:
        process = self.scheduler.current
        assert process is not None
        session = self._session(process)
        assert not session.in_transaction, "a durable transaction inside of another"
        session.in_transaction = not session.broken
        try:
            yield
        except Exception:
            if not session.broken:
                try:
                    self._ask(lambda tables: None, end="rollback")
                except (OperationalError, InterfaceError):
                    self._break(session)
            if session.broken:  # Django drops a connection that it cannot roll back
                self.disconnect()
            raise
        except GeneratorExit:  # a reader that stops early
            self.disconnect()
            raise
        try:
            self._ask(lambda tables: None, end="commit")
        except (OperationalError, InterfaceError):
            self._break(session)
            self.disconnect()
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        process = self.scheduler.current
        assert process is not None
        session = self._session(process)
        saved = session.work.copy() if session.work else None
        try:
            yield
        except Exception:
            if not session.broken:
                session.work = saved
                session.failed = False
            raise

    def disconnect(self) -> None:
        process = self.scheduler.current
        session = self._sessions.get(process) if process else None
        if process is not None and session is not None:
            if not session.broken:
                self._rolled_back(session)
            self._sessions[process] = Session(self.server.term)


class LeadershipTwin:
    """`orders.leadership.Leadership`: a lock that ends with its session, or when its leader says nothing."""

    def __init__(self, database: Connections) -> None:
        self._database = database
        self._session: Session | None = None
        self._leads = False
        self._ask_at = 0.0

    def held(self) -> bool:
        now = self._database.scheduler.now
        if now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            session = self._session = self._session or Session(self._database.server.term)
            try:
                if session.term != self._database.server.term:
                    raise OperationalError("terminating connection due to administrator command")
                self._leads = self._database.ask(lambda tables: self._database.server.lead(session))
            except (OperationalError, InterfaceError):
                self._database.disconnect()
                self.close()
        return self._leads

    def close(self) -> None:
        if self._session is not None:
            self._session.closed = True
        self._session, self._leads = None, False
