"""The parts of `manage.py demo`: the knobs, who clicks when, what is wrong with a run, the connections."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.core.management import CommandError

from management.demo.connections import Connections
from management.demo.messages import Outcome
from management.demo.options import Options, Unusable, read
from management.demo.plan import Click, demand, plan
from management.demo.report import Report, Written, judge, latency
from management.management.commands.demo import Command
from orders.balance import LogBook, OrderBook, balance
from sales.gate import Image


def options(*arguments: str) -> Options:
    parser = Command().create_parser("manage.py", "demo")
    return read(vars(parser.parse_args(list(arguments))))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--units", "-5"], "argument --units: '-5' is not a whole number from 1 to 1000000"),
        (["--double-clicks", "101"], "argument --double-clicks: '101' is not a number from 0 to 100"),
        (["--seconds", "nan"], "argument --seconds: 'nan' is not a number from 0.1 to 60"),
        (["--consumers", "two"], "argument --consumers: 'two' is not a whole number from 1 to 12"),
        (["--kafka", "redpanda"], "argument --kafka: invalid choice: 'redpanda'"),
    ],
)
def test_a_bad_knob_is_named_with_its_bounds(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=r"^Error: ") as refused:
        options(*arguments)
    assert complaint in str(refused.value)


def test_knobs_that_are_too_much_together() -> None:
    with pytest.raises(Unusable, match=r"^that is 600,000 requests; one machine takes 200,000 at most$"):
        options("--buyers", "50000", "--greedy", "100", "--limit", "10", "--double-clicks", "100")


def test_an_admission_that_would_take_for_ever() -> None:
    with pytest.raises(
        Unusable, match=r"^at --rate 1 it takes 2,500 s to admit 6,500 requests; 300 at most$"
    ):
        options("--rate", "1")


def test_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unusable, match=f"^--port {port}: another program listens there$"):
            options("--port", str(port))
    assert options("--port", str(port)).port == port


def test_the_plan_has_what_was_asked_for_within_its_seconds() -> None:
    clicks = plan(buyers=1000, double_clicks=20, greedy=10, limit=3, seconds=0.5, seed=1)

    assert Counter(click.purpose for click in clicks) == {"order": 1000, "double": 200, "greedy": 50 * 3 + 50}
    assert all(0 <= click.at <= 0.5 for click in clicks)
    assert clicks == sorted(clicks, key=lambda click: click.at)
    orders = {click.key: click for click in clicks if click.purpose == "order"}
    for click in clicks:
        if click.purpose == "double":
            first = orders[click.key]
            assert (click.buyer, click.quantity) == (first.buyer, first.quantity)
            assert first.at <= click.at
    assert Counter(click.quantity for click in clicks if click.purpose == "greedy") == {1: 150, 4: 50}
    assert clicks == plan(1000, 20, 10, 3, 0.5, 1)
    assert clicks != plan(1000, 20, 10, 3, 0.5, 2)


def test_demand_counts_a_key_once_and_nobody_above_the_limit() -> None:
    assert demand(plan(1000, 20, 10, 1, 1, 3), limit=1) == 1000
    # Half of the greedy place as many orders more as the limit, which is one too many.
    assert demand(plan(1000, 20, 10, 3, 1, 3), limit=3) == 1000 + 50 * 2


def test_percentiles_are_of_values_that_occurred() -> None:
    found = latency([0.4, 0.1, 0.3, 0.2])
    assert (found.count, found.p50, found.p95, found.p99, found.longest) == (4, 0.2, 0.4, 0.4, 0.4)
    assert latency([]).count == 0


FIRST = Click(0.1, 0, "a", 1, "order")
SECOND = Click(0.1, 0, "a", 1, "double")
OTHER = Click(0.2, 1, "b", 1, "order")


def judged(**changed: Any) -> Report:
    """A run of two buyers for one unit that went well, but for what is changed."""
    image = Image(9, "open", 1, 0, 0, 0, 1, 0)._replace(**changed.pop("gate", {}))
    log = LogBook(0, 0)._replace(**changed.pop("log", {}))
    book = OrderBook(1, 1, 1, 1, 0, 0, 0, 0)._replace(**changed.pop("book", {}))
    outcomes = [
        Outcome(FIRST, "accepted", 0.1, 0.1, 1, "X"),
        Outcome(SECOND, "replayed", 0.2, 0.2, 1, "X"),
        Outcome(OTHER, "sold-out", 3.0, 0.3, 2, ""),
    ]
    run: dict[str, Any] = {
        "clicks": [FIRST, SECOND, OTHER],
        "limit": 1,
        "seed": 1,
        "answers": {"accepted": 1, "replayed": 1, "sold-out": 1, "too-busy": 1},
        "crowd_late": 0.0,
        "outcomes": outcomes,
        "written": Written(frozenset({"X"}), 0.1, 0.2),
        "records": 1,
        "balance": balance("opening", "open", 9, image, log, book),
        "kill": None,
        "kill_wanted": False,
    }
    return judge(**run | changed)


def test_a_run_that_went_well() -> None:
    report = judged()

    assert (report.verdict, report.wrong) == ("balanced", [])
    assert (report.demand, report.orders_accepted, report.lost, report.oversold) == (2, 1, 0, 0)
    assert report.came_back == {"too-busy": 1}
    assert (report.double_clicks, report.double_clicks_apart) == (1, 0)
    assert (report.accepted.count, report.refused.count, report.first_answers.longest) == (2, 1, 0.3)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"written": Written(frozenset(), None, None)}, "1 accepted orders have no confirmed row"),
        ({"outcomes": [Outcome(FIRST, "accepted", 1, 1, 1, "X"), Outcome(SECOND, "accepted", 1, 1, 1, "Y")]},
         "1 double clicks did not get one answer"),
        ({"outcomes": [Outcome(FIRST, "accepted", 1, 1, 1, "X"), Outcome(SECOND, "sold-out", 1, 1, 1, "")]},
         "1 double clicks did not get one answer"),
        ({"book": {"sold": 2, "confirmed": 2}}, "1 units oversold"),
        ({"book": {"sold": 0, "confirmed": 0}, "gate": {"remaining": 1, "settled": 0}},
         "0 units sold, 1 were wanted"),
        ({"book": {"customers_above_limit": 1}}, "I4: 1 customers have more confirmed units than the limit"),
        ({"gate": {"settled": 0}}, "I2: 1 units loaded, but"),
        ({"gate": {"settled": 0, "queued": 1}}, "still under way: 0 units are held, 1 queued"),
        ({"log": {"unread": 2}}, "still under way: 2 records of the log"),
        ({"log": {"unread": None}}, "the broker did not tell"),
        ({"log": {"parked": 1}}, "1 records of the partition are parked"),
        ({"kill_wanted": True}, "no consumer was killed"),
    ],
)  # fmt: skip
def test_a_run_that_did_not(changed: dict[str, Any], complaint: str) -> None:
    report = judged(**changed)

    assert report.verdict == "NOT balanced"
    assert any(complaint in line for line in report.wrong), report.wrong
    assert report.as_json()["wrong"] == report.wrong


def test_a_double_click_that_got_no_answer_is_no_second_answer() -> None:
    outcomes = [Outcome(FIRST, "accepted", 1, 1, 1, "X"), Outcome(SECOND, "timeout", 1, 1, 3, "")]
    assert judged(outcomes=outcomes).balanced


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Kind: a\r\n\r\nok"


@asynccontextmanager
async def server(answering: Answering) -> Any:
    """A server on a free port; yields its port. Its clients must have gone at the end."""
    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            await answering(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, serving))


async def test_connections_are_few_and_used_again() -> None:
    opened = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in (OK[:20], OK[20:]):  # an answer may come in pieces
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    async with server(answer) as port:
        connections = Connections("127.0.0.1", port, 3)
        answers = await asyncio.gather(*(connections.ask(ASK) for _ in range(50)))
        connections.close()

    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {b"ok"}
    assert answers[0].headers[b"x-kind"] == b"a"
    assert opened == 3


async def test_a_server_that_closes_is_an_error_once_and_then_dialled_again() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"closing" in request:
            writer.write(OK[:20])  # and no more
        else:
            writer.write(OK.replace(b"X-Kind: a", b"Connection: close"))

    async with server(answer) as port:
        connections = Connections("127.0.0.1", port, 1)
        with pytest.raises(ConnectionResetError):
            await connections.ask(b"GET /closing HTTP/1.1\r\n\r\n")
        assert [(await connections.ask(ASK)).body for _ in range(3)] == [b"ok"] * 3

    with pytest.raises(OSError, match=str(port)):  # and when nobody listens any more
        await connections.ask(ASK)


async def test_nobody_reads_an_answer_that_somebody_else_gave_up() -> None:
    late = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            if b"slow" in request:
                await late.wait()
            writer.write(OK.replace(b"ok", b"no" if b"slow" in request else b"ok"))

    async with server(answer) as port:
        connections = Connections("127.0.0.1", port, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connections.ask(b"GET /slow HTTP/1.1\r\n\r\n")
        late.set()
        assert (await connections.ask(ASK)).body == b"ok"
        connections.close()


async def test_who_gives_up_in_the_line_leaves_it() -> None:
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await go.wait()
            writer.write(OK)

    async with server(answer) as port:
        connections = Connections("127.0.0.1", port, 1)
        asking = [asyncio.create_task(connections.ask(ASK)) for _ in range(3)]
        await asyncio.sleep(0.01)
        asking[1].cancel()
        go.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        connections.close()

    assert isinstance(answers[1], asyncio.CancelledError)
    assert [getattr(answer, "status", None) for answer in answers] == [200, None, 200]
