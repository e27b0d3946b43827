"""The answer to a request that broke in a way nobody expected."""

import structlog
from django.http import HttpResponse

from orders import metrics
from sales.problems import Problem
from sales.request_id import HEADER, under_way

logger = structlog.get_logger(__name__)


def failure(error: BaseException, **facts: str) -> HttpResponse:
    """Logs and counts it. The answer names the request as the log does."""
    metrics.failed_requests.inc()
    logger.error("request failed", exc_info=error, **facts)
    known = under_way()
    return Problem("internal-error", headers={HEADER: known} if known else {}).response()
