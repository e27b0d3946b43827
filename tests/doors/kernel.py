"""What the kernel knows of connections on this machine: the bytes a server has not read yet."""

from pathlib import Path

_TABLE = Path("/proc/net/tcp")
_LISTENS = "0A"


def unread(port: int, client: int | None = None) -> int:
    """Bytes that lie unread for the server on `port`, of one client's port or of all of them.

    Connections that are not accepted yet count as one byte each.
    """
    total = 0
    for line in _TABLE.read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) != port:
            continue
        if state == _LISTENS or client in (None, int(remote.rpartition(":")[2], 16)):
            total += int(queues.rpartition(":")[2], 16)
    return total
