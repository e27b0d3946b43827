"""Moments as the desk shows them: to the second and with their zone, because a sale opens on one."""

from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format


def moment(value: datetime | None) -> str:
    """`21 Nov 2026, 20:00:00 UTC`, in the site's time zone; empty for None."""
    return date_format(timezone.localtime(value), "j M Y, H:i:s T") if value else ""


def window(opens_at: datetime, closes_at: datetime) -> str:
    """`21 Nov 2026, 20:00 – 20:30`; the second day is named when it is another one."""
    opens, closes = timezone.localtime(opens_at), timezone.localtime(closes_at)
    rest = "H:i" if opens.date() == closes.date() else "j M Y, H:i"
    return f"{date_format(opens, 'j M Y, H:i')} – {date_format(closes, rest)}"
