"""The Idempotency-Key header, after the IETF draft of that name.

Accepted are a structured-field string ("..." per RFC 9651, with its escapes) and the bare value
that most clients send; both spell the same key.
"""

import re

_BARE = re.compile("[!#-~][!-~]{0,254}")
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


class KeyInvalid(ValueError):
    """Not 1 to 255 visible ASCII characters, or a broken quoted string."""


def parse(header: str) -> str:
    """The key that the header spells. Raises KeyInvalid."""
    if _BARE.fullmatch(header):
        return header
    key = header.strip(" \t")
    if key.startswith('"'):
        key = _unquoted(key)
    if not 1 <= len(key) <= 255:
        raise KeyInvalid("a key has 1 to 255 characters")
    if not _VISIBLE.issuperset(key):
        raise KeyInvalid("a key has visible ASCII characters only")
    return key


def _unquoted(field: str) -> str:
    if len(field) < 2 or not field.endswith('"'):
        raise KeyInvalid("the quoted key does not end")
    key, characters = [], iter(field[1:-1])
    for character in characters:
        if character == '"':
            raise KeyInvalid("a quote inside the key needs a backslash")
        if character == "\\":
            character = next(characters, "")
            if character not in ('"', "\\"):
                raise KeyInvalid("a backslash may only stand before a quote or a backslash")
        key.append(character)
    return "".join(key)
