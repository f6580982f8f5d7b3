"""Every version of every row of a keyed table, and from where to where it held, as ONE SQL query over the log.

A state builds on one copy from that copy's H to the next one's: its *reign*. Within a reign the changes of a key follow
one another, each ending the version before it; what a truncate precedes it ends. Where the next reign begins, its own
state is shown, and a version that is the same there goes on. So a version holds at exactly the positions at which
`lake.state` shows it. Only the last one of a transaction held at any.

Values that an UPDATE did not bring (unchanged TOAST) are carried along a row's *thread*, its lives under one key after
another; what the stream never brought is as the copy found it under the key that the row had when the copy ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from claimhouse.change import BY_CUT, META
from claimhouse.lake.defaults import filled, filled_exact, with_exact
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.state import (
    ORDER,
    KeyPart,
    eras_of,
    lacks,
    matching,
    may_be_exact,
    may_be_missing,
    seen,
    state_sql,
)
from claimhouse.quoting import quote, quote_text
from claimhouse.table import Column, Table

_LOG = tuple(f.name for f in (*META, *BY_CUT))
_SEQ = 1 << 48  # places within a transaction, as ORDER counts them
_EARLY = 1 << 125  # the rows of a copy stand so far before every streamed one


def place(incarnation: int, lsn: int) -> int:
    """A position as one number, in order of the log."""
    return (incarnation << 63) + lsn


@dataclass(frozen=True, slots=True)
class Reign:
    """A copy, and where its state is the one that counts: from `begins` to `ends` (excluded), as `place` numbers.

    `at`: the rows of its ground hold from there; `since`: streamed rows of older shapes are part of the ground already.
    """

    copy: Copy
    at: int
    begins: int
    ends: int | None
    since: int = 0


def reigns(state: TableState, shape: Table, lsn: int) -> list[Reign]:
    """The reigns up to a position, oldest first, since the rows' key is the one of `shape`."""
    done = [c for c in state.copies if c.exact_from is not None and c.exact_from <= lsn]
    eras = eras_of([t for t in state.versions if t.version <= shape.version])
    first = eras[-1][0].version if len(eras) > 1 else 0
    turned = state.since[[t.version for t in state.versions].index(first)] if first else 0
    found: list[Reign] = []
    for copy, after in zip(done, [*done[1:], None], strict=True):
        ends = place(after.incarnation, after.exact_from or 0) if after else None
        known = place(copy.incarnation, copy.exact_from or 0)
        if ends is not None and ends <= known:
            continue  # the next copy took its place at once
        if copy.at >= turned:
            found.append(Reign(copy, place(copy.incarnation, copy.at), known, ends))
        elif ends is None or ends > place(copy.incarnation, turned):
            at = place(copy.incarnation, turned)
            found.append(Reign(copy, at, max(known, at), ends, first))
    return found


def intervals_sql(
    state: TableState,
    shape: Table,
    lsn: int,
    *,
    log: str,
    times: str,
    missing: bool,
    columns: Sequence[tuple[str, str]],
) -> str:
    """A SELECT of every version up to a position, in columns under the names of `columns`: (expression, name).

    Expressions read relation `v`: the shape's physical columns, those of a log row that brought it (`_op` r: a copy
    found it), `_from` and `_until` (`place` numbers, NULL: it still holds), `_began` and `_ended` (by `times`), and
    `_by`, `_by_xid`: which change ended it (r: a later copy told). `log` is a relation of the log's rows up to the
    position; `times` one of (`_place`, `_time`): the running maximum of commit times by position. `missing`: whether
    any row may have `_missing`. The shape must have a key.
    """
    writer = _Writer(state, shape, reigns(state, shape, lsn), log)
    last = writer.versions(missing and any(map(may_be_missing, shape.columns)))
    listed = ", ".join(f"{expression} AS {quote(name)}" for expression, name in columns)
    return f"WITH RECURSIVE {', '.join(writer.ctes)} SELECT {listed} FROM ({_timed(writer.reigns, last, times)}) v"


def _timed(found: list[Reign], versions: str, times: str) -> str:
    """The versions with the times of their ends; the first copy's rows hold from the time it was exact at."""
    first = found[0]
    copied = f"v._op = 'r' AND v._reign = 0 AND {first.copy.exact_at} > 0 AND {not first.since}"
    began = (
        f"CASE WHEN {copied} THEN make_timestamptz({first.copy.exact_at}) ELSE coalesce(f._time, v._committed_at) END"
    )
    return (
        f"SELECT *, CASE WHEN _until IS NOT NULL THEN greatest(_began, _end) END AS _ended FROM ("
        f"SELECT v.*, {began} AS _began, t._time AS _end FROM {versions} v"
        f" ASOF LEFT JOIN {times} f ON v._from >= f._place"
        f" ASOF LEFT JOIN {times} t ON v._until >= t._place)"
    )


class _Writer:
    def __init__(self, state: TableState, shape: Table, found: list[Reign], log: str) -> None:
        self.state, self.shape, self.reigns, self.log = state, shape, found, log
        self.ctes: list[str] = []
        parts = [KeyPart(c) for c in shape.key]
        self.new = [sql for p in parts for sql in p.new("r")]
        self.old = [sql for p in parts for sql in p.old("r", whole=False)]
        self.keys = [f"_k{i}" for i in range(len(self.new))]  # no physical name begins so
        self.life = ", ".join(self.keys)

    def _add(self, name: str, sql: str, how: str = "") -> str:
        self.ctes.append(f"{name} AS {how} ({sql})")
        return name

    def versions(self, missing: bool) -> str:
        rows = self._add(
            "rows", " UNION ALL ".join(self._reign(n, r) for n, r in enumerate(self.reigns)), "MATERIALIZED"
        )
        life = self.life
        former = ", ".join(f"{k}_old AS {k}" for k in self.keys)
        rest = f"* EXCLUDE ({', '.join([*self.keys, *(f'{k}_old' for k in self.keys)])})"
        events = self._add(
            "events",
            f"SELECT {life}, _ord * 2 + (_op <> 'd')::INT AS _at, _op <> 'd' AS _alive, {rest} FROM {rows}"
            f" WHERE _op <> 't' UNION ALL "
            f"SELECT {former}, _ord * 2, false, {rest} FROM {rows} WHERE _moved",
        )
        if missing:
            events = self._carried(events)
        follows = ", ".join(f"lead({c}) OVER w AS _next{c}" for c in ("_at", "_place", "_op", "_xid"))
        self._add("steps", f"SELECT *, {follows} FROM {events} WINDOW w AS (PARTITION BY _reign, {life} ORDER BY _at)")
        self._add(
            "cleared",
            f"SELECT _reign, _ord * 2 AS _t_at, _place AS _t_place, _xid AS _t_xid FROM {rows} WHERE _op = 't'",
        )
        truncated = "t._t_at IS NOT NULL AND (s._next_at IS NULL OR t._t_at < s._next_at)"
        self._add(
            "ended",
            f"SELECT s.*, CASE WHEN {truncated} THEN t._t_place ELSE s._next_place END AS _until,"
            f" CASE WHEN {truncated} THEN 't' ELSE s._next_op END AS _by,"
            f" CASE WHEN {truncated} THEN t._t_xid ELSE s._next_xid END AS _by_xid"
            " FROM steps s ASOF LEFT JOIN cleared t ON s._reign = t._reign AND s._at < t._t_at WHERE s._alive",
        )
        held = self._resolved("ended") if missing else "ended"
        return self._joined(self._clipped(held))

    def _reign(self, number: int, reign: Reign) -> str:
        """The rows that one reign's state is made of, with their keys now and before, and their places."""
        copy = reign.copy
        after = f"(_incarnation > {copy.incarnation} OR (_incarnation = {copy.incarnation} AND _end_lsn > {copy.at}))"
        where = ["_op <> 'r'", after, f"_schema >= {reign.since}"]
        if reign.ends is not None:
            where.append(f"{_placed('_incarnation', '_end_lsn')} <= {reign.ends}::HUGEINT")
        if copy.sees is not None:
            where.append(f"NOT {seen(copy.sees)}")
        ground = f"SELECT * FROM {self.log} WHERE _op = 'r' AND _copy = {copy.number}"
        if reign.since:
            before = f"(SELECT * FROM {self.log} WHERE _op = 'r' OR _schema < {reign.since})"
            state = state_sql(self.state, log=before, copy=copy, shape=self.shape)
            ground = f"SELECT * REPLACE ('r' AS _op) FROM ({state})"
        stream = f"SELECT * FROM {self.log} WHERE {' AND '.join(where)}"
        keys = [f"{sql} AS {k}" for k, sql in zip(self.keys, self.new, strict=True)]
        keys += [f"{sql} AS {k}_old" for k, sql in zip(self.keys, self.old, strict=True)]
        values = [f"{filled(c, 'r')} AS {quote(c.physical)}" for c in self.shape.columns]
        meta = [f"{filled_exact(self.shape, 'r')} AS _exact" if m == "_exact" else f"r.{m}" for m in _LOG]
        first = f"(r._cut::HUGEINT * {_SEQ} + r._seq) - {_EARLY}::HUGEINT"  # read twice, the last read counts
        streamed = _placed("r._incarnation", "r._end_lsn")
        places = [
            f"CASE WHEN r._op = 'r' THEN {first} ELSE {ORDER} END AS _ord",
            f"CASE WHEN r._op = 'r' THEN {reign.at}::HUGEINT ELSE {streamed} END AS _place",
        ]
        moved = " OR ".join(f"{k}_old IS DISTINCT FROM {k}" for k in self.keys)
        chosen = ", ".join([f"{number} AS _reign", *keys, *places, *meta, *values])
        return (
            f"SELECT *, _op = 'u' AND ({moved}) AS _moved"
            f" FROM (SELECT {chosen} FROM ({ground} UNION ALL BY NAME {stream}) r)"
        )

    # --- from one reign to the next

    def _clipped(self, versions: str) -> str:
        """Each version within its reign. Rows of the first copy that changed while it was read are not told by it."""
        values = ", ".join(
            f"({n}, {r.begins}::HUGEINT, {'NULL' if r.ends is None else r.ends}::HUGEINT)"
            for n, r in enumerate(self.reigns)
        )
        self._add("reigns", f"SELECT * FROM (VALUES {values}) reigns (_reign, _begins, _ends)")
        found = "v._reign > 0 AND (v._place < r._begins OR v._op = 'r')"
        over = "v._until IS NULL AND r._ends IS NOT NULL"
        return self._add(
            "clipped",
            f"SELECT v.* REPLACE (CASE WHEN {found} THEN 'r' ELSE v._op END AS _op,"
            f" CASE WHEN {found} THEN NULL ELSE v._xid END AS _xid,"
            f" CASE WHEN {found} THEN NULL ELSE v._committed_at END AS _committed_at,"
            f" coalesce(v._until, r._ends) AS _until, CASE WHEN {over} THEN 'r' ELSE v._by END AS _by),"
            f" CASE WHEN {found} THEN r._begins ELSE v._place END AS _from, {found} AS _found, {over} AS _over"
            f" FROM {versions} v JOIN reigns r ON v._reign = r._reign"
            " WHERE (v._until IS NULL OR v._until > v._place) AND v._place <= coalesce(r._ends, v._place)"
            " AND (v._until IS NULL OR v._until > r._begins OR (v._reign = 0 AND v._op <> 'r'))",
        )

    def _joined(self, clipped: str) -> str:
        """Versions that the next reign's state shows unchanged, as one."""
        if len(self.reigns) == 1:
            return clipped
        same = " AND ".join(f"{v} IS NOT DISTINCT FROM lag({v}) OVER w" for v in self._values())
        goes_on = f"_found AND lag(_over) OVER w AND lag(_until) OVER w = _from AND {same}"
        self._add(
            "flagged",
            f"SELECT *, coalesce({goes_on}, false) AS _same FROM {clipped}"
            f" WINDOW w AS (PARTITION BY {self.life} ORDER BY _from, _reign)",
        )
        counted = f"sum((NOT _same)::INT) OVER (PARTITION BY {self.life} ORDER BY _from, _reign) AS _island"
        self._add("islands", f"SELECT *, {counted} FROM flagged")
        ends = ", ".join(f"last_value({c}) OVER i AS {c}" for c in ("_until", "_by", "_by_xid"))
        whole = f"PARTITION BY {self.life}, _island ORDER BY _from, _reign"
        self._add(
            "whole",
            f"SELECT * REPLACE ({ends}) FROM islands WINDOW i AS ({whole}"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) QUALIFY NOT _same",
        )
        return self._add("joined", "SELECT * FROM whole WHERE _until IS NULL OR _until > _from")

    def _values(self) -> list[str]:
        """What makes a version another one: its values, and what of them stands elsewhere."""
        found = [quote(c.physical) for c in self.shape.columns]
        found += [f"_exact[{quote_text(c.physical)}]" for c in self.shape.columns if may_be_exact(c.kind)]
        return [*found, "_missing"]

    # --- unchanged TOAST values

    def _carried(self, events: str) -> str:
        """Each event with its row's thread, and with the values that the thread's stream had last."""
        life, keys = self.life, self.keys
        begun = (
            "coalesce(max(CASE WHEN _alive AND (_op = 'c' OR _moved) THEN _at END) OVER lives, -1::HUGEINT) AS _life"
        )
        self._add(
            "lives",
            f"SELECT *, {begun} FROM {events} WINDOW lives AS (PARTITION BY _reign, {life} ORDER BY _at)",
            "MATERIALIZED",
        )
        froms = ", ".join(f"d.{k} AS {k}_from" for k in keys)
        own = ", ".join(f"c.{k}" for k in keys)
        self._add(
            "came",
            f"SELECT c._reign, {own}, c._at AS _life, {froms}, d._life AS _life_from FROM lives c JOIN lives d"
            " ON c._reign = d._reign AND c._ord = d._ord WHERE c._alive AND c._moved AND NOT d._alive",
            "MATERIALIZED",
        )
        parent = " AND ".join(f"p.{k} IS NOT DISTINCT FROM c.{k}_from" for k in keys)
        parent += " AND p._life = c._life_from AND p._reign = c._reign"
        begins = ", ".join(f"c.{k}_from AS {k}_root" for k in keys)
        roots = [*(f"{k}_root" for k in keys), "_life_root"]
        self._add(
            "threads",
            f"SELECT c._reign, {own}, c._life, {begins}, c._life_from AS _life_root FROM came c"
            f" ANTI JOIN came p ON {parent} UNION ALL"
            f" SELECT c._reign, {own}, c._life, {', '.join(f'p.{r}' for r in roots)}"
            f" FROM came c JOIN threads p ON {parent}",
        )
        root = ", ".join(
            f"CASE WHEN t._reign IS NULL THEN l.{of} ELSE t.{r} END AS {r}"
            for of, r in zip([*keys, "_life"], roots, strict=True)
        )
        self._add(
            "threaded",
            f"SELECT l.*, {root} FROM lives l LEFT JOIN threads t"
            f" ON l._reign = t._reign AND l._life = t._life AND {matching('l', 't', keys)}",
            "MATERIALIZED",
        )
        lasts = ", ".join(
            f"last_value(CASE WHEN _alive AND _op <> 'r' AND NOT {lacks('_missing', c)} THEN {_valued(c)} END"
            f" IGNORE NULLS) OVER thread AS _last{i}"
            for i, c in enumerate(self._wanted())
        )
        return self._add(
            "carried",
            f"SELECT *, {lasts} FROM threaded WINDOW thread AS (PARTITION BY _reign, {', '.join(roots)} ORDER BY _at"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
        )

    def _resolved(self, versions: str) -> str:
        """The versions with the values that their `_missing` names: the carried ones, else what the copy found.

        What a copy found is younger than what ended before its H, and tells nothing of that.
        """
        keys, wanted = self.keys, self._wanted()
        roots = ["_reign", *(f"{k}_root" for k in keys), "_life_root"]
        listed = ", ".join(roots)
        self._add("needy", f"SELECT DISTINCT {listed} FROM threaded WHERE _missing IS NOT NULL AND _alive")
        marks = " ".join(f"WHEN {n} THEN {(r.begins + 1) * _SEQ * 2}::HUGEINT" for n, r in enumerate(self.reigns))
        chosen = ", ".join(f"arg_max({k}, _life) AS {k}" for k in keys)
        self._add(
            "held",
            f"SELECT {listed}, {chosen} FROM threaded h SEMI JOIN needy n ON {matching('h', 'n', roots)}"
            f" WHERE _life < CASE _reign {marks} END GROUP BY {listed}",
        )
        found = ", ".join(f"{_valued(c, 'g')} AS _held{i}" for i, c in enumerate(wanted))
        self._add(
            "found",
            f"SELECT {', '.join(f'h.{r}' for r in roots)}, {found} FROM held h JOIN ("
            f"SELECT * FROM lives WHERE _op = 'r' QUALIFY row_number() OVER (PARTITION BY _reign, {self.life}"
            f" ORDER BY _at DESC) = 1) g ON h._reign = g._reign AND {matching('h', 'g', keys)}",
        )
        begins = " ".join(f"WHEN {n} THEN {r.begins}::HUGEINT" for n, r in enumerate(self.reigns))
        late = f"(v._until IS NULL OR v._until > CASE v._reign {begins} END)"
        exact: list[tuple[Column, str, str]] = []
        replaced, left = [], []
        for i, column in enumerate(wanted):
            both = f"coalesce(v._last{i}, CASE WHEN {late} THEN f._held{i} END)"
            needs, name = lacks("v._missing", column), quote(column.physical)
            replaced.append(f"CASE WHEN {needs} THEN ({both}).v ELSE v.{name} END AS {name}")
            left.append(f"CASE WHEN {both} IS NULL AND {needs} THEN {quote_text(column.physical)} END")
            if may_be_exact(column.kind):
                exact.append((column, f"({both}).x IS NOT NULL AND {needs}", f"({both}).x"))
        missing = f"nullif(concat_ws(',', {', '.join(left)}), '')"
        replaced += [f"{missing} AS _missing", f"{with_exact('v._exact', exact)} AS _exact"]
        return self._add(
            "resolved",
            f"SELECT v.* REPLACE ({', '.join(replaced)}) FROM {versions} v"
            f" LEFT JOIN found f ON {matching('v', 'f', roots)}",
        )

    def _wanted(self) -> list[Column]:
        return [c for c in self.shape.columns if may_be_missing(c)]


def _placed(incarnation: str, lsn: str) -> str:
    """The `place` of a log row."""
    return f"({incarnation}::HUGEINT * 9223372036854775808 + {lsn})"


def _valued(column: Column, row: str = "") -> str:
    """A value with its exact text as one, so that NULL is a value too."""
    at = f"{row}." if row else ""
    return f"{{'v': {at}{quote(column.physical)}, 'x': {at}_exact[{quote_text(column.physical)}]}}"
