"""Loopback ports."""

import random
import socket
from collections.abc import Mapping, Sequence

from management.embedded.processes import StackError
from management.embedded.server import Server

# Below the range from which Linux, macOS and the BSDs take ports for outgoing connections: a server
# that comes back to its port must not find a client there.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen there now. Sockets that are only waiting out their close do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """A port that is free now and not in `taken`; at random, since two checkouts may start at once."""
    while True:
        port = random.choice(RANGE)  # noqa: S311 (nothing secret about it)
        if port not in taken and is_free(port):
            return port


def assign(
    ports: dict[str, int], servers: Sequence[Server], missing: Sequence[Server], wanted: Mapping[str, int]
) -> None:
    """Give each label of the `missing` servers a free port: the wanted one, else its last one, else any.

    Changes `ports` only where it must, since clients of a dead server still know its port. Raises
    StackError when a wanted port is taken, or one on which brokers that still run expect a dead one.
    """
    known = {label for server in servers for label in server.labels}
    if strange := set(wanted) - known:
        names = ", ".join(sorted(known))
        raise StackError(f"there is no server {', '.join(sorted(strange))}: ports can be given to {names}")
    healthy = [server for server in servers if server not in missing]
    for server in healthy:
        for label in server.labels:
            if label in wanted and wanted[label] != ports[label]:
                raise StackError(f"{label} already serves on port {ports[label]}: `stack down` first")
    bound = any(server.further_ports for server in healthy)  # a quorum knows its members' ports
    for server in missing:
        for label in server.labels:
            port = wanted.get(label, ports.get(label))
            others = {number for name, number in ports.items() if name != label and name in known}
            if port is not None and port not in others and is_free(port):
                ports[label] = port
            elif label in wanted or (bound and server.further_ports):
                raise StackError(f"port {port} for {label} is taken by another program")
            else:
                ports[label] = free_port(others)
