"""The doctor: is everything around Flux-Gate as the promise needs it? One line each, with a hint."""

from orders.doctor.examination import CHECKS, examine
from orders.doctor.finding import Finding, Level

__all__ = ["CHECKS", "Finding", "Level", "examine"]
