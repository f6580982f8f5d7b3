"""Who shares a value with changed claims: how many share it, how near to them in days, how many of those there are.

NumPy over the values' members: a value's changed claims are paired with all of its claims.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BURST = 90  # the longest window of the rules that count bursts (sql/parts/bursts.sql)


def near(members: pa.Table, changed: pa.Array, most: int, near_hub: int, no_hubs: tuple[str, ...]) -> pa.Table:
    """Per value and claim that shares it with another: kind, claim_id, and `claims` that share it, how many of those
    are `near` a changed claim (BURST days, the most of any), `days` to the nearest changed claim.

    `members`: kind, value, claim_id, day, distinct. A value of more than `most` claims is left out unless its kind is
    one of `no_hubs`; from `near_hub` claims on all count as near.
    """
    group = _numbered(members["kind"]) << 32 | _numbered(members["value"])
    _, group = np.unique(group, return_inverse=True)
    size = np.bincount(group)
    several = size[group] > 1
    hub = (size[group] > most) & ~_flags(pc.is_in(members["kind"], pa.array(no_hubs, pa.string())))
    kept = np.flatnonzero(several & ~hub)
    kept = kept[np.argsort(group[kept], kind="stable")]
    members, group = members.take(pa.array(kept)), group[kept]
    day = members["day"].cast(pa.int32()).cast(pa.float64()).to_numpy()
    claims = size[group]
    here, place, days = _pairs(group, _flags(pc.is_in(members["claim_id"], changed)), day)
    close = np.bincount(here, weights=days < BURST, minlength=len(group))
    most_near, least_days = np.zeros(len(group)), np.full(len(group), np.inf)
    np.maximum.at(most_near, place, close[here])
    np.fmin.at(least_days, place, days)
    crowd = claims >= near_hub
    return pa.table(
        {
            "kind": members["kind"],
            "claim_id": members["claim_id"],
            "claims": claims,
            "near": np.where(crowd, claims, most_near),
            "days": np.where(crowd, 0, least_days),
        }
    )


def _pairs(group: np.ndarray, changed: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of changed members, of every member of the same group beside each, and the days between the two.

    `group` is sorted.
    """
    here = np.flatnonzero(changed)
    first, last = np.searchsorted(group, group[here], "left"), np.searchsorted(group, group[here], "right")
    many = last - first
    here = np.repeat(here, many)
    place = np.arange(len(here)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(first, many)
    return here, place, np.abs(day[place] - day[here])


def _numbered(column: pa.ChunkedArray) -> np.ndarray:
    coded = column.combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _flags(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(bool)
