"""The form of every line that our processes log: structlog's own, Django's, the libraries', gunicorn's."""

from typing import Any

import structlog

from sales.request_id import add_request_id


def configured(log_format: str, level: str) -> dict[str, Any]:
    """Sets structlog up; returns what `logging.config.dictConfig` takes. `json` is an object per line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # The console shows tracebacks by itself, and better.
    rendered: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=False)]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structlog"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # A refused request is not an incident: the metrics count it.
            "django.request": {"level": "ERROR"},
            # A line per wrong password, without name and address: `sign-in locked` has both.
            "axes": {"level": "ERROR"},
            # Anybody may send a foreign Host, as often as they like.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            # The worker hands its handlers to uvicorn. Without this it prints a form of its own.
            "gunicorn.error": {"handlers": ["stderr"], "level": level, "propagate": False},
        },
    }
