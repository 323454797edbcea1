"""From a name to its picture. Pure: the same name gives the same bytes on every machine."""

from hashlib import sha256

SIDE = 5
"""Cells in a row and in a column; the left half is drawn and mirrored."""


def normalise(name: str) -> str:
    """One face for ``Ada``, ``ada`` and `` ADA ``."""
    return " ".join(name.split()).casefold()


def cells(name: str) -> list[list[bool]]:
    """Which cells of the picture are filled, row by row."""
    bits = iter(_bits(name))
    rows = [[next(bits) for _ in range((SIDE + 1) // 2)] for _ in range(SIDE)]
    return [half + half[-2::-1] for half in rows]


def hue(name: str) -> int:
    """The colour of the picture, in degrees around the colour wheel."""
    return int.from_bytes(_digest(name)[-2:], "big") % 360


def svg(name: str) -> str:
    """The whole picture, in units of one cell with a margin of half a cell."""
    squares = "".join(
        f"M{x} {y}h1v1h-1z"
        for y, row in enumerate(cells(name))
        for x, filled in enumerate(row)
        if filled
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-.5 -.5 {SIDE + 1} {SIDE + 1}">'
        f'<path fill="hsl({hue(name)} 55% 45%)" d="{squares}"/></svg>'
    )


def _digest(name: str) -> bytes:
    return sha256(normalise(name).encode()).digest()


def _bits(name: str):
    for byte in _digest(name):
        for shift in range(8):
            yield bool(byte >> shift & 1)
