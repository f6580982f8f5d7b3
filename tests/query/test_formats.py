"""Every format gives back what went in, whatever the values hold."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimhouse.errors import UsageError
from claimhouse.query import formats, render

NAN, INF = float("nan"), float("inf")


def reader(table: pa.Table, rows: int = 2) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows))


def written(table: pa.Table, name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    assert formats.write(reader(table), name, out, **options) == table.num_rows
    return out.getvalue()


def mixed() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 9223372036854775807, None], pa.int64()),
            "amount": pa.array(
                [Decimal("0E-10"), Decimal("-99999999999999999999.0000000001"), None], pa.decimal128(38, 10)
            ),
            "rate": pa.array([NAN, -INF, 1e-7], pa.float64()),
            "name": pa.array(['a "q", b\r\n', "", None], pa.string()),
            "odd": pa.array(["\x00\x1b[31m\\", "Ω漢", "=1+1"], pa.string()),
            "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "day": pa.array([date(1, 1, 1), date(2024, 2, 29), None]),
            "at": pa.array(
                [datetime(2024, 1, 2, 3, 4, 5, 6), datetime(9999, 12, 31, 23, 59, 59, 999999), None], pa.timestamp("us")
            ),
            "seen": pa.array([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)] * 2 + [None], pa.timestamp("us", tz="UTC")),
            "ok": pa.array([True, False, None]),
            "tags": pa.array([["x", None, 'y"'], [], None], pa.list_(pa.string())),
            "sums": pa.array([[Decimal("1.50")], [None], None], pa.list_(pa.decimal128(10, 2))),
            "pair": pa.array(
                [{"a": 1, "b": [b"\x01"]}, {"a": None, "b": None}, None],
                pa.struct([("a", pa.int64()), ("b", pa.list_(pa.binary()))]),
            ),
            "exact": pa.array([[("x", "infinity")], [], None], pa.map_(pa.string(), pa.string())),
        }
    )


def test_json_keeps_every_digit_and_every_special_value() -> None:
    text = written(mixed(), "json").decode()
    first, second, third = json.loads(text, parse_float=Decimal)
    assert '"amount":0.0000000000,' in text
    assert "9223372036854775807" in text
    assert second["amount"] == Decimal("-99999999999999999999.0000000001")
    assert (first["rate"], second["rate"], third["rate"]) == ("NaN", "-Infinity", Decimal("1e-7"))
    assert (first["name"], second["name"], third["name"]) == ('a "q", b\r\n', "", None)
    assert (first["odd"], second["odd"]) == ("\x00\x1b[31m\\", "Ω漢")
    assert (first["raw"], second["raw"]) == ("\\x00ff", "\\x")
    assert (first["day"], first["at"]) == ("0001-01-01", "2024-01-02T03:04:05.000006")
    assert (first["seen"], second["at"]) == ("2024-01-02T03:04:05.000000Z", "9999-12-31T23:59:59.999999")
    assert (first["ok"], second["ok"], third["ok"]) == (True, False, None)
    assert (first["tags"], second["tags"], third["tags"]) == (["x", None, 'y"'], [], None)
    assert (first["sums"], second["sums"]) == ([Decimal("1.50")], [None])
    assert (first["pair"], second["pair"], third["pair"]) == ({"a": 1, "b": ["\\x01"]}, {"a": None, "b": None}, None)
    assert (first["exact"], second["exact"], third["exact"]) == ({"x": "infinity"}, {}, None)


def test_json_of_nothing_is_an_empty_array_and_of_two_equal_names_keeps_both() -> None:
    assert json.loads(written(mixed().slice(0, 0), "json")) == []
    twice = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "a_1"])
    assert json.loads(written(twice, "json")) == [{"a": 1, "a_1": 2, "a_1_1": 3}]


@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=6))
def test_any_text_survives_json_and_csv(values: list[str | None]) -> None:
    table = pa.table({"id": range(len(values)), "v": pa.array(values, pa.string())})
    assert [r["v"] for r in json.loads(written(table, "json"))] == values
    rows = list(csv.reader(io.StringIO(written(table, "csv").decode(), newline="")))
    assert [r[1] for r in rows[1:]] == [v or "" for v in values]


@given(st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-9, 9)), max_size=3)), max_size=6))
def test_nested_lists_survive_slicing(values: list[list[int | None] | None]) -> None:
    table = pa.table({"v": pa.array(values, pa.list_(pa.int32()))})
    assert [r["v"] for r in json.loads(written(table, "json"))] == values
    assert [r["v"] for r in json.loads(written(table.slice(1), "json"))] == values[1:]


def test_csv_tells_null_from_an_empty_text_and_ends_lines_as_rfc_4180_says() -> None:
    text = written(mixed().select(["id", "name", "raw", "rate"]), "csv").decode()
    assert text.startswith(
        'id,name,raw,rate\r\n1,"a ""q"", b\r\n",\\x00ff,NaN\r\n9223372036854775807,"",\\x,-Infinity\r\n,,,'
    )


def test_csv_disarms_formulas_only_when_asked_and_never_in_numbers() -> None:
    risky = ["=1+1", "+1", "-1", "@x", "\tx", "\x00x", "＝1"]
    table = pa.table({"n": [-1, 2, 3, 4, 5, 6, 7, 8], "t": [*risky, "plain"]})
    assert [r["t"] for r in csv.DictReader(io.StringIO(written(table, "csv").decode()))] == table["t"].to_pylist()
    armed = written(table, "csv", escape_formulas=True).decode().split("\r\n")[1:-1]
    assert armed == ["-1,'=1+1", "2,'+1", "3,'-1", "4,'@x", "5,'\tx", "6,'\x00x", "7,'＝1", "8,plain"]
    assert b'"\'\n=1"' in written(pa.table({"t": ["\n=1"]}), "csv", escape_formulas=True)


def test_a_moment_beyond_what_arrow_writes_is_still_a_moment() -> None:
    answer = duckdb.sql(
        "SELECT unnest(['infinity', '-infinity', '290000-01-01', '2026-01-31'])::DATE AS day,"
        " unnest(['infinity', '-infinity', '290000-01-01', NULL])::TIMESTAMP AS at,"
        " unnest(['infinity', '-infinity', '290000-01-01', '2026-01-31 12:00:00'])::TIMESTAMP::TIMESTAMPTZ AS moment"
    ).to_arrow_table()
    rows = [line.split(",") for line in written(answer, "csv").decode().splitlines()[1:]]
    assert rows[:2] == [["infinity"] * 3, ["-infinity"] * 3]
    assert rows[2][:2] == ["290000-01-01", "290000-01-01T00:00:00.000000"]
    assert rows[2][2].endswith("Z") and rows[3][:2] == ["2026-01-31", ""]
    assert json.loads(written(answer, "json"))[0] == dict.fromkeys(("day", "at", "moment"), "infinity")


@pytest.mark.parametrize(
    "value",
    [
        *(NAN, -INF, b"\x01\xff", date(2026, 1, 31), True, None, "x", 7, [1, None], [b"", b"x"]),
        *(datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 1, 31, 12)),
    ],
)
def test_a_single_value_is_written_as_a_column_of_it_is(value: object) -> None:
    shown = render.as_json(pa.array([value]))[0].as_py()
    assert json.dumps(render.single(value)).replace(", ", ",") == shown
    assert render.single(Decimal("0.0000001")) == "0.0000001"


def test_parquet_and_arrow_give_the_same_table_back() -> None:
    table = mixed().drop(["rate"])  # a NaN is equal to nothing
    assert pq.read_table(io.BytesIO(written(table, "parquet"))).equals(table)
    assert pa.ipc.open_stream(written(table, "arrow")).read_all().equals(table)


def test_a_table_is_aligned_and_cannot_drive_a_terminal() -> None:
    text = written(mixed().select(["id", "odd", "ok"]), "table").decode()
    assert "\x1b" not in text
    assert text.splitlines() == [
        "id                  | odd           | ok",
        "--------------------+---------------+------",
        "                  1 | \\x00\\x1b[31m\\ | true",
        "9223372036854775807 | Ω漢           | false",
        "                    | =1+1          |",
    ]


def test_markdown_holds_pipes_and_tags_as_text() -> None:
    table = pa.table({"a|b": ["x|y", "<img onerror=1>\n"], "n": [1, None]})
    assert written(table, "markdown").decode() == (
        "| a\\|b | n |\n| --- | ---: |\n| x\\|y | 1 |\n| &lt;img onerror=1>\\\\n |  |\n"
    )


def test_an_answer_larger_than_a_batch_is_written_whole_in_every_format() -> None:
    found = duckdb.sql("SELECT i AS id, 'row ' || i AS t FROM range(25000) r(i)").to_arrow_table()
    for name in formats.FORMATS:
        out = io.BytesIO()
        assert formats.write(reader(found, 10_000), name, out) == 25_000
        assert b"row 24999" in out.getvalue() or name in ("parquet", "arrow")


def test_an_unknown_format_is_a_usage_error_with_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        formats.write(reader(mixed()), "xlsx", io.BytesIO())
    assert "markdown" in str(caught.value.hint)
