"""How the hits on a claim come to one score: as if each were an independent chance that something is there.

    score = 1 - product(1 - weight * own score)

Two weak signs come to more than one, none of them beyond 1, and a claim's reasons stay readable each for itself. It
orders a queue; it is no probability, and it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod


def combined(hits: Iterable[tuple[float, float]]) -> float:
    """The score of a claim from (weight, own score) of its hits, 0 without any."""
    return round(1 - prod(1 - weight * score for weight, score in hits), 4)
