"""Words and colours of the pictures: plain SVG, readable on light and dark pages."""

from html import escape

INK, FAINT, PAPER = "#1c2430", "#6b7685", "#ffffff"
COLOURS = {"ours": ("#0b7a75", "#3aa9a3", "#8fd0cb"), "reference": ("#8a5a2b", "#c89a6a")}


def text(
    x: float, y: float, words: str, size: int, *, anchor: str = "start", colour: str = INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def digits(value: float) -> int:
    """After the point."""
    return 0 if value >= 100 else 1
