"""Parts of the embedded stack, with small programs in place of servers."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from management.embedded import StackError, apache_kafka, maven, processes, record, starting, valkey
from management.embedded.kafka_protocol import speaks_kafka
from management.embedded.ports import assign, free_port, is_free
from management.embedded.processes import Launch, Process, end, is_running, last_lines, spawn, started_at
from management.embedded.record import Record
from management.embedded.server import Server
from tests.management.running import processes_in, wait_for


def program(folder: Path, text: str, **changes: object) -> Server:
    """A server that runs `text` as Python and is up when the file `up` is there."""
    server = Server(
        "made-up",
        prepare=lambda ports: Launch([sys.executable, "-c", text], folder),
        answers=lambda ports: (folder / "up").exists(),
    )
    return replace(server, **changes)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def test_a_server_that_never_answers_is_ended_and_its_log_shown(root: Path) -> None:
    silent = program(root, "import time; print('thinking', flush=True); time.sleep(600)", patience=0.5)
    with pytest.raises(StackError) as raised:
        starting.start_servers(root, Record(), [silent])
    first, *log = str(raised.value).splitlines()
    assert first == f"made-up does not answer after 0.5 s; {root}/logs/made-up.log ends with:"
    assert log == ["    thinking"]
    assert processes_in(root) == []


def test_when_one_fails_the_others_are_ended(root: Path) -> None:
    patient = program(root, "import time; time.sleep(600)", name="patient")
    broken = program(root, "raise SystemExit('no luck')", name="broken")
    state = Record()
    with pytest.raises(StackError) as raised:
        starting.start_servers(root, state, [patient, broken])
    assert str(raised.value).startswith("broken ended while starting; ")
    assert str(raised.value).endswith("    no luck")
    assert "patient" not in str(raised.value)
    assert processes_in(root) == []
    assert state.processes == {}
    assert record.load(root).processes == {}


def test_a_server_that_ignores_the_signal_is_killed_with_its_children(root: Path) -> None:
    deaf = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = root / "logs" / "deaf.log"
    process = spawn(Launch([sys.executable, "-c", deaf], root), log, signal.SIGTERM)
    wait_for(lambda: log.read_text().count("ready") == 2)
    end(process, patience=0.2)
    assert not is_running(process)
    wait_for(lambda: processes_in(root) == [])


def test_a_stranger_with_our_pid_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        ours = Process(stranger.pid, started="long ago", stop=signal.SIGKILL)
        assert not is_running(ours)
        end(ours)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_does_not_run() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    # Not reaped yet, so the pid is still taken; `started_at` reaps what is ours, and says so.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert started_at(child) is None


def test_the_same_process_is_known_again_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        said = processes._started_at_without_proc(sleeper.pid)
        assert said
        assert processes._started_at_without_proc(sleeper.pid) == said
    finally:
        sleeper.kill()
        sleeper.wait()
    assert processes._started_at_without_proc(sleeper.pid) is None


def test_variables_of_the_caller_do_not_reach_a_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    log = root / "logs" / "env.log"
    process = spawn(Launch(["env"], root, variables={"OURS": "1"}), log, signal.SIGTERM)
    wait_for(lambda: not is_running(process))
    names = {line.split("=", 1)[0] for line in log.read_text().splitlines()}
    assert names == {"PATH", "LC_ALL", "TZ", "OURS"}


def test_the_end_of_a_log_is_what_this_start_has_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == ""
    log.write_text("old\n")
    before = log.stat().st_size
    assert last_lines(log, before) == ""
    log.write_text("old\n" + "".join(f"new {n}\n\n" for n in range(30)))
    assert last_lines(log, before, count=4) == "    new 28\n    new 29"


def test_the_record_survives_the_file_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    state = Record("apache", 3, "abc", {"gate": 1}, {"gate": Process(7, "then", 15)})
    record.save(tmp_path, state)
    assert record.load(tmp_path) == state
    for damaged in ("", "{", "[]", "null", '{"processes": {"gate": 1}}', json.dumps({"strange": 1})):
        (tmp_path / "stack.json").write_text(damaged)
        assert record.load(tmp_path) == Record()


def _servers(*labels: tuple[str, ...]) -> list[Server]:
    return [
        Server(name, lambda ports: Launch([], Path()), lambda ports: True, further_ports=further)
        for name, *rest in labels
        for further in [tuple(rest)]
    ]


def test_every_label_gets_a_port_of_its_own() -> None:
    servers = _servers(("kafka-1", "kafka-1-controller"), ("kafka-2", "kafka-2-controller"), ("gate",))
    ports: dict[str, int] = {}
    assign(ports, servers, servers, {})
    assert set(ports) == {"kafka-1", "kafka-1-controller", "kafka-2", "kafka-2-controller", "gate"}
    assert len(set(ports.values())) == 5
    kept = dict(ports)
    assign(ports, servers, servers, {})
    assert ports == kept


def test_two_labels_cannot_have_one_port() -> None:
    servers = _servers(("gate",), ("cache",))
    port = free_port(set())
    ports: dict[str, int] = {}
    with pytest.raises(StackError, match=f"^port {port} for cache is taken"):
        assign(ports, servers, servers, {"gate": port, "cache": port})


def test_a_member_of_a_living_quorum_cannot_move() -> None:
    one, two = servers = _servers(("kafka-1", "kafka-1-controller"), ("kafka-2", "kafka-2-controller"))
    ports: dict[str, int] = {}
    assign(ports, servers, servers, {})
    before = dict(ports)
    with socket.create_server(("127.0.0.1", ports["kafka-2-controller"])) as taken:
        assert not is_free(taken.getsockname()[1])
        with pytest.raises(StackError, match="kafka-2-controller is taken by another program"):
            assign(ports, servers, [two], {})
        assign(ports, servers, [one, two], {})  # when none lives, all can
    assert ports["kafka-2-controller"] != before["kafka-2-controller"]


def test_what_is_not_a_broker_does_not_speak_kafka() -> None:
    assert not speaks_kafka(free_port(set()))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def chat() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=chat)
        thread.start()
        assert not speaks_kafka(server.getsockname()[1])
        thread.join()


def test_a_path_is_written_as_valkey_and_java_read_it() -> None:
    assert valkey._quoted(Path('/a "b"/c\\d')) == r'"/a \"b\"/c\\d"'
    assert apache_kafka._escaped("/a b/\\/ü/🦉") == r"/a b/\\/\u00fc/\ud83e\udd89"


def test_a_cluster_id_is_one_that_kafka_takes() -> None:
    ids = {apache_kafka._new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert {len(text) for text in ids} == {22}
    assert not [text for text in ids if text.startswith("-")]


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ('openjdk version "11.0.2" 2019-01-15', "is Java 11: "),
        ('java version "1.8.0_292"', "is Java 8: "),
        ("", "does not run: "),
    ],
)
def test_a_java_too_old_or_broken_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, complaint: str
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    java.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(StackError) as raised:
        maven.find_java()
    assert str(raised.value) == (
        f"{java} {complaint}Apache Kafka needs Java 17 or newer "
        "(Debian: apt-get install openjdk-17-jre-headless)"
    )


def test_without_java_or_maven_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"^java is not installed: .*openjdk-17-jre-headless\)$"):
        maven.find_java()
    with pytest.raises(StackError, match=r"^mvn is not installed: .*apt-get install maven\)$"):
        maven.fetch(tmp_path / "kafka")
    assert list(tmp_path.iterdir()) == []


def test_what_maven_says_is_passed_on_and_half_a_download_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mvn = tmp_path / "mvn"
    mvn.write_text(
        "#!/bin/sh\n"
        'for argument; do case "$argument" in -DoutputDirectory=*) mkdir "${argument#*=}";; esac; done\n'
        'echo "[ERROR] Could not transfer artifact org.apache.kafka:kafka_2.13: Connection refused"\n'
        'echo "[ERROR] -> [Help 1]"\n'
        "exit 1\n"
    )
    mvn.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(StackError) as raised:
        maven.fetch(tmp_path / "kafka")
    assert str(raised.value) == (
        "Maven could not fetch Apache Kafka: "
        "Could not transfer artifact org.apache.kafka:kafka_2.13: Connection refused"
    )
    assert list((tmp_path / "kafka").iterdir()) == []
