# ruff: noqa: S603  # fixed argument lists, and the programs are the system's own
"""The images the compose file names, made here: nothing is pulled, and no build reaches a network.

Debian trees come from mmdebstrap with the mirror and the options that this machine's apt has, wheels from
this machine's pip, Kafka's jars from this machine's Maven. So every mirror, proxy and certificate set up here
counts, and none of them is written into a file of the repository. All of it is kept in `.fluxgate/compose/`,
named after the hash of what it was made from.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine import Engine

ROOT = Path(__file__).resolve().parent.parent.parent
STAND_INS = Path(__file__).resolve().parent / "stand-ins"
CACHE = ROOT / ".fluxgate" / "compose"

SUITE = "bookworm"
# `python` is what the public slim image has and no more: a library that our image forgot must fail here too.
TREES = {
    "python": "python3,python3-venv",
    "servers": "postgresql-15,redis-server,default-jre-headless",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the compose file is told to use instead of the public images.
NAMES = {
    "BASE_IMAGE": "fluxgate-test/python",
    "POSTGRES_IMAGE": "fluxgate-test/postgres",
    "REDIS_IMAGE": "fluxgate-test/redis",
    "KAFKA_IMAGE": "fluxgate-test/kafka",
}


Say = Callable[[str], None]
Make = Callable[[Path], Path]


class ImageError(RuntimeError):
    """An image could not be made; the message is for a person and ends with the tool's last lines."""


def make_all(engine: Engine, say: Say) -> None:
    """Fill the engine with the stand-ins and the wheels; the first time takes minutes, then seconds."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for tree, packages in TREES.items():
        recipe = f"{SUITE} {packages} {tree_options(tree)}"
        tar = kept(tree, recipe, partial(make_tree, tree), engine, say)
        import_image(engine, tar, tree, f"ENV PATH={PATH}")
    for name, source, make in (
        ("wheels", ROOT / "requirements.lock", download_wheels),
        ("kafka-jars", ROOT / "deploy" / "kafka" / "pom.xml", download_jars),
    ):
        tar = kept(name, source.read_text(), partial(make, source), engine, say)
        import_image(engine, tar, name)
    for name in ("postgres", "redis", "kafka"):
        build = ["docker", "build", "--network", "none", "-t", f"fluxgate-test/{name}"]
        run([*build, str(STAND_INS / name)], engine)


def kept(name: str, recipe: str, make: Make, engine: Engine, say: Say) -> Path:
    """The cached tar file of this recipe; made, and its predecessors removed, when there is none.

    `make` gets an empty folder to work in and returns the tar file or the folder that is to be kept as one.
    """
    path = CACHE / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"
    if not path.exists():
        say(f"making {name}: once, then kept in .fluxgate/compose")
        for older in CACHE.glob(f"{name}-*"):
            older.unlink()
        # In the engine's folder: no space in its path, which not every tool likes, and removed with it.
        work = engine.folder / f"making-{name}"
        work.mkdir()
        made = make(work)
        if made.is_dir():
            run(["tar", "-C", str(made), "-cf", f"{made}.tar", "."])
            made = Path(f"{made}.tar")
        # Under its final name only when complete: an interrupted run leaves nothing that looks finished.
        unfinished = path.with_suffix(f".{engine.name}")
        shutil.move(made, unfinished)
        unfinished.rename(path)
    return path


def tree_options(tree: str) -> list[str]:
    options = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "locale", "man/??", "info")]
    if tree == "python":  # where the public image has it
        for name in ("python", "python3"):
            options.append(f'--customize-hook=ln -s /usr/bin/python3 "$1/usr/local/bin/{name}"')
    return options


def make_tree(tree: str, work: Path) -> Path:
    """A minimal Debian with the tree's packages, as a tar file.

    In a mount namespace: mmdebstrap mounts /proc and /sys into the tree, and a kill must not leave them.
    """
    # Proxies, certificates and time-outs of this machine's apt.
    settings = work / "apt.conf"
    dumped = run(["apt-config", "dump"])
    settings.write_text("".join(f"{line}\n" for line in dumped.splitlines() if line.startswith("Acquire::")))
    made = work / f"{tree}.tar"
    options = ["--quiet", "--mode=root", "--variant=minbase", *tree_options(tree), f"--aptopt={settings}"]
    run(
        ["unshare", "--mount", "mmdebstrap", *options, f"--include={TREES[tree]}", SUITE, str(made), mirror()]
    )
    return made


def mirror() -> str:
    """Where this machine's apt gets Debian's main archive from."""
    wanted = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"
    asked = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    targets = [line.split() for line in run(asked).splitlines()]
    plain = [t for t in targets if len(t) == 4 and t[2:] == ["main", "Debian"] and "-" not in t[1]]
    if not plain:
        raise ImageError("apt knows no Debian archive: run `apt-get update` on a Debian machine")
    # Every Debian archive carries the suite, whichever release this machine is; its own is the surest.
    return str(min(plain, key=lambda target: target[1] != SUITE)[0])


def download_wheels(lock: Path, work: Path) -> Path:
    """Every wheel of the lock, checked against its hashes by the pip of this Python and its configuration."""
    # The image's Python may be an older patch release than this one: what only such need is fetched as well.
    everything = work / "requirements.txt"
    everything.write_text(
        "".join(
            line.split(" ; ")[0] + " \\\n" if " ; python_full_version" in line else line + "\n"
            for line in lock.read_text().splitlines()
        )
    )
    options = ["--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
    wheels = work / "wheels"
    run([sys.executable, "-m", "pip", "download", *options, "-d", str(wheels), "-r", str(everything)])
    return wheels


def download_jars(pom: Path, work: Path) -> Path:
    """Kafka and what it needs at run time."""
    jars = work / "jars"
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    run(["mvn", "--batch-mode", "--quiet", "-f", str(pom), *goal])
    return jars


def import_image(engine: Engine, tar: Path, name: str, *changes: str) -> None:
    """An image of one layer, `fluxgate-test/NAME`."""
    options = [option for change in changes for option in ("--change", change)]
    run(["docker", "import", *options, str(tar), f"fluxgate-test/{name}"], engine)


def run(command: list[str], engine: Engine | None = None) -> str:
    """Run it and return what it printed. Raises ImageError with its last lines."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=engine.environment if engine else None,
    )
    if done.returncode != 0:
        last = "\n  ".join(done.stdout.splitlines()[-8:])
        raise ImageError(f"`{' '.join(command[:4])} …` failed:\n  {last}")
    return done.stdout
