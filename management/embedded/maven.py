"""Fetch Apache Kafka from Maven Central, once, and find a Java to run it."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from management.embedded.processes import StackError

POM = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "pom.xml"
OLDEST_JAVA = 17  # https://kafka.apache.org/documentation/#java


def find_java() -> Path:
    """A Java that can run the broker, of JAVA_HOME or else of PATH. Raises StackError when there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    advice = (
        f"Apache Kafka needs Java {OLDEST_JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    )
    if java is None:
        raise StackError(f"java is not installed: {advice}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None:
        raise StackError(f"{java} does not run: {advice}")
    if int(version[1]) < OLDEST_JAVA:
        raise StackError(f"{java} is Java {version[1]}: {advice}")
    return Path(java)


def fetch(cache: Path) -> Path:
    """The folder of jars below `cache`, filled by Maven when it is not there yet. Raises StackError."""
    jars = cache / _version()
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            "mvn is not installed: it fetches Apache Kafka, once (Debian: apt-get install maven)"
        )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Under another name first: an interrupted download must not look like a whole one.
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=cache) as draft:
            _copy_dependencies(maven, Path(draft) / "jars")
            try:
                (Path(draft) / "jars").rename(jars)
            except OSError:
                if not jars.is_dir():  # else another checkout that shares the cache was quicker
                    raise
    except OSError as error:
        raise StackError(f"cannot write Apache Kafka to {cache}: {error.strerror}") from None
    return jars


def _version() -> str:
    found = re.search(r"<kafka\.version>([\w.-]+)</kafka\.version>", POM.read_text())
    if found is None:
        raise StackError(f"{POM} names no kafka.version")
    return found[1]


def _copy_dependencies(maven: str, folder: Path) -> None:
    answer = subprocess.run(  # noqa: S603 (Maven, with a file of ours)
        [
            maven, "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", str(POM),
            "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}",
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode != 0:
        lines = re.findall(r"(?m)^\[(?:ERROR|FATAL)\] (?!\[ERROR\] Some problems)(.+)", answer.stdout)
        reason = lines[0] if lines else "it did not say why"
        raise StackError(f"Maven could not fetch Apache Kafka: {reason[:400]}")
