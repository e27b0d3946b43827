"""Open files: each connection is one, in the crowd and in the web process that answers it."""

import resource

# Of a process besides its connections: libraries, logs, the gate, the broker.
_BESIDES = 200


def raise_limit() -> int:
    """Lifts the limit for this process and its children. Returns how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:  # macOS says so and means a lower number
        hard = max(soft, 10_240)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        hard = soft
    return max(1, hard - _BESIDES)
