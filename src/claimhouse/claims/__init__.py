"""The demo claims book: schema, generator, loader and the simulator that lives it forward."""

from claimhouse.claims.book import Book, labels, lookalikes, make_book
from claimhouse.claims.invariants import INVARIANTS, breaches
from claimhouse.claims.loader import Loaded, load
from claimhouse.claims.simulator import Counts, Simulator

__all__ = [
    "INVARIANTS",
    "Book",
    "Counts",
    "Loaded",
    "Simulator",
    "breaches",
    "labels",
    "load",
    "lookalikes",
    "make_book",
]
