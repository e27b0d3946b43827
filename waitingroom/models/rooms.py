"""The waiting room of a sale: what the operator sets, the draw, every change of the pace."""

import secrets
from functools import partial

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from sales.models import Sale
from waitingroom import draw


class Room(models.Model):
    """One per sale with the waiting room on; the keeper makes it when the sale is armed.

    `turn_rate` is turns per second (where steering begins, and returns to), `turn_seconds` how long one
    lasts. `secret` and what follows belong to the draw (waitingroom/draw.py): the list of entries, their
    number, its digest.
    """

    sale = models.OneToOneField(Sale, on_delete=models.CASCADE, primary_key=True, related_name="room")
    turn_rate = models.PositiveIntegerField(
        "turns per second",
        default=50,
        validators=[MaxValueValidator(100_000)],
        help_text="With 0 the line stands still.",
    )
    turn_seconds = models.PositiveIntegerField(
        "length of a turn",
        default=120,
        validators=[MinValueValidator(10), MaxValueValidator(3600)],
        help_text="Seconds. Who misses the turn goes to the end of the line.",
    )
    steers = models.BooleanField(
        "the engine steers",
        default=False,
        help_text="Slower when orders are written down late, faster when turns go unused, within the bounds.",
    )
    least_rate = models.PositiveIntegerField(
        "at least",
        default=1,
        validators=[MinValueValidator(1)],
        help_text="Turns per second, while it steers.",
    )
    most_rate = models.PositiveIntegerField(
        "at most",
        default=1000,
        validators=[MinValueValidator(1), MaxValueValidator(100_000)],
        help_text="Turns per second, while it steers.",
    )
    passes = models.BooleanField(
        "everybody passes",
        default=False,
        help_text="Nobody needs a turn any more: only the sale's admission rate limits the crowd.",
    )
    message = models.CharField(
        max_length=280,
        blank=True,
        help_text="Said to everybody in line, as plain text. Pages near the turn ask every few seconds.",
    )
    beacon_name = models.CharField(
        "beacon",
        max_length=200,
        blank=True,
        help_text="A value nobody knows before the opening, and how it will be spelled. It joins the draw, "
        "which waits for it. Once announced it stays.",
    )
    beacon = models.CharField(
        "value of the beacon",
        max_length=200,
        blank=True,
        help_text="To be entered once, after the opening. The line begins to move with it.",
    )
    secret = models.BinaryField(default=partial(secrets.token_bytes, 32), editable=False)
    salt = models.BinaryField(default=partial(secrets.token_bytes, 16), editable=False)
    entries = models.TextField(blank=True, editable=False)
    entered = models.PositiveIntegerField("entries", null=True, editable=False)
    digest = models.CharField(max_length=64, blank=True, editable=False)
    # Above every number that has been handed out: see waitingroom/keeping.py.
    handed = models.PositiveBigIntegerField(default=0, editable=False)

    class Meta:
        verbose_name = "waiting room"
        constraints = [
            models.CheckConstraint(condition=models.Q(turn_seconds__gt=0), name="room_turns_last"),
            models.CheckConstraint(
                condition=models.Q(least_rate__gt=0, most_rate__gte=models.F("least_rate")),
                name="room_bounds",
            ),
        ]

    def __str__(self) -> str:
        return f"Waiting room of {self.sale}"

    def clean(self) -> None:
        """What the database would refuse, told early."""
        if self.least_rate and self.most_rate and self.least_rate > self.most_rate:
            raise ValidationError({"most_rate": "The upper bound lies below the lower one."})

    @property
    def is_drawn(self) -> bool:
        """Whether every place is fixed."""
        return self.entered is not None and bool(self.beacon or not self.beacon_name)

    @property
    def commitment(self) -> str:
        return draw.commitment(bytes(self.secret))


class Pace(models.Model):
    """One segment of a line's schedule, and why it began. Append-only, by a trigger.

    `from_time` is Unix ms on the gate's clock.
    """

    room = models.ForeignKey(Room, on_delete=models.PROTECT, related_name="paces")
    ordinal = models.PositiveIntegerField()
    from_time = models.BigIntegerField()
    from_number = models.FloatField()
    rate = models.FloatField()
    reason = models.CharField(max_length=200)

    class Meta:
        ordering = ["room", "ordinal"]
        constraints = [
            # Of two keepers at once only one writes the next segment.
            models.UniqueConstraint(fields=["room", "ordinal"], name="pace_once"),
            models.CheckConstraint(
                condition=models.Q(rate__gte=0, from_number__gte=0), name="pace_not_backwards"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rate:g} turns per second from number {self.from_number:g}: {self.reason}"
