# ruff: noqa: S603  # fixed argument lists, and the programs are the system's own
"""docker-compose.yml, unchanged, on the engine of the proof: up, commands inside, down."""

import json
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

from engine import Engine
from images import NAMES, ROOT

PROJECT = "fluxgate-proof"
ONE_SHOT = {"migrate", "roles", "topics"}


class CommandFailed(RuntimeError):
    """A docker-compose command failed; the message holds its last lines."""


class Composition:
    """The file, brought up with secrets of its own. Closed by `down`, and by the engine's end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.token_key = secrets.token_hex(32)
        # As a person would write it: a file of variables, quotes included.
        self._variables = engine.folder / "compose.env"
        self._variables.write_text(
            f"FLUXGATE_SECRET_KEY={secrets.token_hex(32)}\n"
            f"FLUXGATE_TOKEN_KEYS='{json.dumps({'proof': self.token_key})}'\n"
            "FLUXGATE_ALLOWED_HOSTS=127.0.0.1\n"
            f"POSTGRES_PASSWORD={secrets.token_hex(24)}\n"
            "FLUXGATE_HTTPS=false\n"  # nobody ends TLS in front of the proof
            "KAFKA_HEAP_OPTS=-Xms256m -Xmx512m\n" + "".join(f"{k}={v}\n" for k, v in NAMES.items())
        )
        self._variables.chmod(0o600)
        self.no_variables = engine.folder / "empty.env"
        self.no_variables.touch()

    def __call__(self, *arguments: str, variables: Path | None = None) -> str:
        """What `docker-compose ARGUMENTS` printed. Raises CommandFailed."""
        program = ["docker-compose", "--ansi", "never", "--project-name", PROJECT]
        program += ["--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml")]
        done = subprocess.run(
            [*program, "--env-file", str(variables or self._variables), *arguments],
            env=self._engine.environment,
            cwd=self._engine.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            last = "\n  ".join(done.stdout.splitlines()[-12:])
            raise CommandFailed(
                f"docker-compose {' '.join(arguments)[:80]} ended with {done.returncode}:\n  {last}"
            )
        return done.stdout

    def build(self) -> None:
        """Our image, from the file's own `build`, without a network: the wheels come as an image."""
        wheels = ["--build-arg", "WHEELS_IMAGE=fluxgate-test/wheels", "--build-arg", "PIP_NO_INDEX=1"]
        self("build", *wheels, "web")

    def up(self) -> None:
        self("up", "--detach", "--no-build")

    def down(self) -> None:
        self("down", "--volumes", "--remove-orphans")

    def manage(self, *arguments: str) -> str:
        """`manage.py ARGUMENTS` in the running web container."""
        return self("exec", "-T", "web", "python", "manage.py", *arguments)

    def sql(self, query: str) -> list[list[str]]:
        """The rows of a query, as text, asked in the postgres container."""
        psql = ["psql", "-U", "fluxgate", "-d", "fluxgate", "-AtF", "|", "-v", "ON_ERROR_STOP=1", "-c", query]
        return [line.split("|") for line in self("exec", "-T", "postgres", *psql).splitlines()]

    def containers(self) -> list[dict[str, Any]]:
        """`docker inspect` of every container of the project, one-shots that have ended included."""
        ids = self("ps", "--all", "--quiet").split()
        asked = subprocess.run(
            ["docker", "inspect", *ids],  # noqa: S607
            env=self._engine.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(asked.stdout)
        return found

    def wait_until_healthy(self, seconds: float) -> list[str]:
        """Names of the services that are still not healthy (or, one-shots, not done) after the time."""
        deadline = time.monotonic() + seconds
        while waiting := sorted({service(c) for c in self.containers() if not is_well(c)}):
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        return waiting

    def last_words(self) -> str:
        """The last log lines of every service, for the failure's report."""
        return self("logs", "--no-color", "--tail", "15")


def service(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def is_well(container: dict[str, Any]) -> bool:
    state = container["State"]
    if service(container) in ONE_SHOT:
        return state["Status"] == "exited" and state["ExitCode"] == 0
    return bool(state.get("Health", {}).get("Status") == "healthy")
