"""A payload that nobody could read, made fit for people's eyes."""

import json

MAX_PAYLOAD = 16_384  # bytes that are shown


def readable(payload: bytes) -> str:
    """A payload that nobody could read, as text: indented JSON, else UTF-8, else a hex dump.

    Never raises, and never returns markup: the caller escapes it. Long payloads are cut.
    """
    shown = payload[:MAX_PAYLOAD]
    rest = f"\n… {len(payload) - len(shown)} more bytes" if len(payload) > len(shown) else ""
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        dump = (
            f"{start:06x}  {shown[start : start + 16].hex(' '):<47}  {_printable(shown[start : start + 16])}"
            for start in range(0, len(shown), 16)
        )
        return "\n".join(dump) + rest
    if not rest:
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return "".join(map(_visible, text)) + rest


def _visible(sign: str) -> str:
    return sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}"


def _printable(line: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
