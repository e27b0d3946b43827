"""The merchant's face on the pages: words, logo, and colours that can be read."""

import re

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models

from waitingroom.colours import READABLE, contrast

# What an accent stands on, and what stands on it: fluxgate.css.
LIGHT, DARK = ("#ffffff", "#f7f6f3"), ("#101116", "#191b22", "#14163a")
_COLOUR = RegexValidator(r"^#[0-9a-f]{6}$", "A colour as #rrggbb, in small letters.")


class Brand(models.Model):
    """The merchant's face on the pages. At most one row; without one the pages wear ours."""

    only = models.BooleanField(primary_key=True, default=True, editable=False)
    name = models.CharField(max_length=60, default="Flux-Gate")
    headline = models.CharField(max_length=80, default="Small numbers, sold fairly")
    lede = models.CharField(
        "words below it",
        max_length=300,
        default="Every sale opens on the shop’s clock, for everybody at the same moment. "
        "One press is one order, however often you press.",
    )
    accent = models.CharField(
        max_length=7,
        default="#3a45c9",
        validators=[_COLOUR],
        help_text="Buttons and links in light mode, with white on it.",
    )
    accent_dark = models.CharField(
        "accent in the dark",
        max_length=7,
        default="#a3acff",
        validators=[_COLOUR],
        help_text="The same in dark mode, on nearly black and with nearly black on it.",
    )
    logo = models.BinaryField(blank=True, default=bytes, editable=False)
    logo_type = models.CharField(max_length=40, blank=True, editable=False)
    logo_version = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(only=True), name="brand_only_one")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Colours that cannot be read are refused: the pages promise WCAG AA."""
        unreadable = {}
        for field, backgrounds in (("accent", LIGHT), ("accent_dark", DARK)):
            colour = getattr(self, field)
            if not re.fullmatch(_COLOUR.regex, colour):
                continue  # its own validator says so
            found = min(contrast(colour, background) for background in backgrounds)
            if found < READABLE:
                unreadable[field] = f"Contrast {found:.1f}: it takes {READABLE} to be readable."
        if unreadable:
            raise ValidationError(unreadable)
