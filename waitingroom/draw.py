"""The draw for those who came before the opening, which anybody can check.

Before it, SHA-256(secret) is published. At the opening the entries are frozen, and their count and digest
published with the secret. Then every place follows:

    seed  = SHA-256(secret, digest, beacon)
    place = a permutation of 0..entries-1, keyed with the seed, of the number on the ticket

The merchant knows the secret and not the entries, the buyers their entries and not the secret; who trusts
neither names a beacon: a value nobody knows before the opening, such as that day's lottery numbers.
The permutation is a Feistel network with cycle walking (Black and Rogaway, 2002): a place costs the same
for ten entries as for a million, and no list is kept. static/waitingroom/draw.js computes the same.
"""

from collections.abc import Iterable
from hashlib import sha256

ROUNDS = 10  # more than the 4 of Luby and Rackoff: with a few entries the halves have a few bits
LEAST_BITS = 4  # of a half: with 2, some orders of four people came 9 % more often than others


def commitment(secret: bytes) -> str:
    """Published when the line opens, in hex: the secret cannot be chosen any more."""
    return sha256(secret).hexdigest()


def tag(salt: bytes, customer: str) -> str:
    """How a customer stands in the list of entries: to be found by who knows the salt and the customer."""
    return sha256(salt + customer.encode()).hexdigest()[:32]


def listed(tags: Iterable[str]) -> str:
    """The list of entries: a tag a line, in the order of the numbers on the tickets."""
    return "".join(f"{each}\n" for each in tags)


def digest(entries: str) -> str:
    """Of the frozen list, in hex."""
    return sha256(entries.encode()).hexdigest()


def seed(secret: bytes, digest: str, beacon: str = "") -> bytes:
    """32 bytes that fix every place. `digest` is in hex, `beacon` any text."""
    return sha256(secret + bytes.fromhex(digest) + beacon.encode()).digest()


def objection(
    commitment: str, entries: str, count: int, digest_told: str, secret: str, seed_told: str, beacon: str
) -> str | None:
    """What is wrong with a draw as it is published, in one sentence; None when all of it holds.

    `commitment` is what was published before the opening; hex all but `entries`, the list, and `beacon`.
    """
    try:
        told, known = bytes.fromhex(secret), bytes.fromhex(digest_told)
    except ValueError:
        return "The secret or the digest is not in hex."
    if commitment != sha256(told).hexdigest():
        return "The secret is not the one that was committed to before the opening."
    if known.hex() != digest(entries):
        return "The list of entries is not the one that was frozen at the opening."
    if entries.count("\n") != count:
        return f"The list has {entries.count(chr(10))} entries, and {count} were published."
    if seed_told != seed(told, digest_told, beacon).hex():
        return "The seed does not follow from the secret, the list and the beacon."
    return None


def place(seed: bytes, number: int, entries: int) -> int:
    """The place in line, from 0, of an entry's number. Raises ValueError when it took no part."""
    if not 0 <= number < entries:
        raise ValueError(f"number {number} is not among {entries} entries")
    half = max(LEAST_BITS, ((entries - 1).bit_length() + 1) // 2)
    while True:
        number = _permuted(seed, number, half)
        if number < entries:
            return number


def _permuted(seed: bytes, number: int, half: int) -> int:
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for each in range(ROUNDS):
        mixed = sha256(seed + bytes([each]) + right.to_bytes(4, "big")).digest()
        left, right = right, left ^ (int.from_bytes(mixed[:4], "big") & mask)
    return left << half | right
