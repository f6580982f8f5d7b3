"""Connected components: which claims hang together through things that they share.

The links come from SQL as two columns of claims; a union-find over NumPy arrays joins them, whole columns at a time
(each round halves the distance of every claim to its component's least place). What was reached from some claims is
found the same way, one step of links a round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def components(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.Table:
    """The component of each claim that a link names: columns claim_id (as given) and component (a number)."""
    both = pa.chunked_array([*left.chunks, *right.chunks], left.type).combine_chunks()
    coded = both.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    place = coded.indices.to_numpy(zero_copy_only=False)
    root = union(place[: len(left)], place[len(left) :], len(coded.dictionary))
    return pa.table({"claim_id": coded.dictionary, "component": pa.array(root)})


def union(left: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    """For each of `size` places the least place that links (left[i], right[i]) connect it with."""
    root = np.arange(size)
    while True:
        low = np.minimum(root[left], root[right])
        joined = root.copy()
        np.minimum.at(joined, root[left], low)
        np.minimum.at(joined, root[right], low)
        while not np.array_equal(joined, joined[joined]):
            joined = joined[joined]
        if np.array_equal(joined, root):
            return root
        root = joined


class Members:
    """Components as they were found last, so that what hangs together is not looked for link by link again.

    An edge that has gone leaves a component larger than it is now, which is no harm: whoever asks looks at its edges.
    """

    def __init__(self) -> None:
        self._of: dict[Any, set[Any]] = {}

    def around(self, claims: Iterable[Any]) -> list[Any]:
        """These claims and all that were in a component with one of them."""
        found: set[Any] = set()
        for claim in claims:
            found |= self._of.get(claim, {claim}) if claim not in found else set()
        return sorted(found)

    def forget(self, claims: Iterable[Any]) -> None:
        for claim in claims:
            self._of.pop(claim, None)

    def learn(self, joined: pa.Table) -> None:
        """Components as `components` gives them."""
        groups: dict[int, set[Any]] = {}
        for claim, component in zip(joined["claim_id"].to_pylist(), joined["component"].to_pylist(), strict=True):
            groups.setdefault(component, set()).add(claim)
        self._of |= {claim: group for group in groups.values() for claim in group}


def distinct(*columns: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The distinct values of columns of one type, without NULL."""
    chunks = [c for column in columns for c in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    if not chunks:
        return pa.array([], pa.int64())
    found = pa.chunked_array(chunks).unique()
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return found.filter(pc.is_valid(found))
