"""The house itself: its layers, its dependencies, and that nothing of anybody's machine is in it."""

import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
LOCKS = ["requirements.lock", "requirements-dev.lock"]
NOT_OURS = {".git", ".venv", ".fluxgate", "__pycache__", "staticfiles", "node_modules"}


def lint_imports(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_imports_go_downward_only() -> None:
    answer = lint_imports()
    assert answer.returncode == 0, answer.stdout


def test_twin_an_import_upward_is_seen(tmp_path: Path) -> None:
    upside_down = tmp_path / "upside-down.ini"
    upside_down.write_text(
        "[importlinter]\nroot_packages =\n    sales\n    orders\n"
        "[importlinter:contract:twin]\nname = twin\ntype = layers\nlayers =\n    sales\n    orders\n"
    )
    answer = lint_imports("--config", str(upside_down), "--no-cache")
    assert (answer.returncode, "1 broken" in answer.stdout) == (1, True)


def test_every_dependency_has_a_reason() -> None:
    project = PYPROJECT.partition("dependencies = [")[2].partition("\n]")[0]
    stack = PYPROJECT.partition("\nstack = [")[2].partition("\n]")[0]
    lines = [line for line in (project + stack).splitlines() if line.strip()]
    assert len(lines) > 20
    for line in lines:
        assert re.fullmatch(r'    "[^"]+", +# \S.{10,}', line), line


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_everything_by_hash_and_names_no_index(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    pinned = [line for line in lines if re.match(r"[a-z0-9]", line)]
    assert len(pinned) > 20
    for line in pinned:
        assert re.match(r"[a-z0-9._-]+==\S+", line), line
    text = "\n".join(lines)
    assert text.count("--hash=sha256:") >= len(pinned)
    for word in ("://", "--index", "--extra", "--find-links", "--trusted-host", " @ "):
        assert word not in text, word


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    described = tomllib.loads(PYPROJECT)
    groups = described["dependency-groups"]
    wanted = {
        "requirements.lock": described["project"]["dependencies"],
        "requirements-dev.lock": [
            *described["project"]["dependencies"],
            *(line for group in groups.values() for line in group if isinstance(line, str)),
        ],
    }
    for name, requirements in wanted.items():
        pinned = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(), re.M))
        asked = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in requirements}  # type: ignore[index]
        assert {re.sub(r"[._-]+", "-", each).lower() for each in asked} <= pinned


def our_files() -> list[Path]:
    """What would be committed: of git where there is one, else everything that is not made by tools."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not NOT_OURS & {*path.relative_to(ROOT).parts} and ".cache" not in str(path)
    ]


def machine_words() -> set[str]:
    """What names the machine of whoever runs this: folders, its name, the index its pip is set to."""
    # A folder of one step, like a container's, and a name that is a plain word, are found in any prose.
    words = {f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 2 or folder.name == "root"}
    if re.search(r"\d", socket.gethostname()):
        words.add(socket.gethostname())
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    words |= set(re.findall(r"https?://(?:[^@/\s']+@)?([^/:\s']+\.[^/:\s']+)", asked.stdout))
    return words - {"pypi.org", "files.pythonhosted.org", "127.0.0.1"}


def test_nothing_of_this_machine_is_in_the_files() -> None:
    files, words = our_files(), {word.encode() for word in machine_words()}
    assert len(files) > 100
    found = [(str(path), word) for path in files for word in words if word in path.read_bytes()]
    assert not found


def test_files_stay_readable() -> None:
    """One decision a file: about 300 lines at most, except for what a tool has written."""
    packages = ("fluxgate_site", "management", "orders", "sales", "waitingroom")
    long = {
        str(path.relative_to(ROOT)): count
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts and (count := len(path.read_text().splitlines())) > 320
    }
    assert not long
