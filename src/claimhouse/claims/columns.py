"""Columns of the demo book: NumPy on the inside, Arrow at the edge.

The generator works on whole columns. Money is int64 cents, moments are int64 microseconds since 1970 (UTC), days are
int64 days since 1970; `ABSENT` stands for NULL in all of them. Here they become Arrow, and random choices become
repeatable: every stage draws from its own stream, named, so that a change in one stage leaves the others as they were.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made when it is imported
ABSENT = np.iinfo(np.int64).min
DAY = 86_400_000_000
HOUR = DAY // 24
MONEY = pa.decimal128(14, 2)
EPOCH = date(1970, 1, 1)


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one stage, the same for the same seed whatever other stages draw."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def day_number(day: date) -> int:
    """Days since 1970."""
    return (day - EPOCH).days


def moment(day: int) -> datetime:
    """Midnight of a day number, for messages and tests."""
    return datetime.fromordinal(EPOCH.toordinal() + day)


def whole(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """Integers; ABSENT becomes NULL."""
    return pa.array(values, mask=values == ABSENT).cast(kind or pa.int64())


def money(cents: np.ndarray) -> pa.Array:
    """int64 cents as decimal(14,2), without a Python object per value."""
    words = np.empty((len(cents), 2), dtype=np.int64)
    words[:, 0] = cents
    words[:, 1] = cents >> 63
    return pa.Array.from_buffers(MONEY, len(cents), [None, pa.py_buffer(words.tobytes())])


def stamps(micros: np.ndarray) -> pa.Array:
    """Microseconds since 1970 as timestamps in UTC."""
    return whole(micros).cast(pa.timestamp("us", tz="UTC"))


def dates(days: np.ndarray) -> pa.Array:
    """Day numbers as dates."""
    return whole(days).cast(pa.int32()).cast(pa.date32())


def words(vocabulary: Sequence[str | None], index: np.ndarray) -> pa.Array:
    """The words at these places."""
    return pa.array(vocabulary, pa.string()).take(pa.array(index.astype(np.int64)))


def digits(numbers: np.ndarray, width: int) -> pa.Array:
    """Numbers as text, with zeros in front."""
    return pc.utf8_lpad(pa.array(numbers.astype(np.int64)).cast(pa.string()), width, "0")


def joined(*parts: pa.Array | str) -> pa.Array:
    """Text columns and constants joined row by row."""
    return pc.binary_join_element_wise(*[pa.scalar(p) if isinstance(p, str) else p for p in parts], "")


def pick(rng: np.random.Generator, weights: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    """Places drawn with these weights."""
    edges = np.cumsum(np.asarray(weights, dtype=float))
    return np.minimum(np.searchsorted(edges, rng.random(size) * edges[-1], side="right"), len(edges) - 1)


def lognormal(rng: np.random.Generator, median: np.ndarray | float, sigma: np.ndarray | float, size: int) -> np.ndarray:
    """Lognormal values given by their median, as insurers speak of them."""
    return np.asarray(median) * np.exp(np.asarray(sigma) * rng.standard_normal(size))


def years_of(days: np.ndarray) -> np.ndarray:
    """The calendar year of each day number."""
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def months_of(days: np.ndarray) -> np.ndarray:
    """The month (0 = January) of each day number."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12


def add_years(days: np.ndarray, years: np.ndarray) -> np.ndarray:
    """The anniversary of each day (days of month up to 28)."""
    month = days.astype("datetime64[D]").astype("datetime64[M]")
    within = days - month.astype("datetime64[D]").astype(np.int64)
    return (month + 12 * years).astype("datetime64[D]").astype(np.int64) + within
