"""An S3 that is slow, refuses, breaks off or answers late: between us and it stands a proxy that does so, by turns."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.lake.test_changes import SHAPES, cut, flush, seen
from tests.lake.writing import Writer

from claimhouse.errors import StorageGone
from claimhouse.lake import storage
from claimhouse.lake.lake import Lake, create
from claimhouse.lake.storage import BucketStore, Exists, open_store

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """`faults[method]` are done to the next requests of that method, one each:

    a status: answered without asking the server; "before": hung up on, unasked; "after": done, and the answer lost;
    "half": the answer's body breaks off; "twice": done two times, as by somebody between who did not hear the first.
    """

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = urlsplit(behind)
        self.faults: dict[str, list[int | str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Proxy  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            waiting = self.server.faults.get(self.command, [])
            fault = waiting.pop(0) if waiting else None
            self.server.asked.append((self.command, self.path))
        if isinstance(fault, int):
            self._answer(fault, {"Retry-After": "0"}, SLOW_DOWN)
        elif fault != "before":
            if fault == "twice":
                self._ask(body)
            status, headers, answer = self._ask(body)
            if fault != "after":
                self._answer(status, headers, answer, cut_at=len(answer) // 2 if fault == "half" else None)
        if fault in ("before", "after", "half"):
            self.close_connection = True

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        place = self.server.behind
        behind = http.client.HTTPConnection(place.hostname or "", place.port)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut_at: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", headers.get("content-length")) if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut_at])

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(s3_endpoint)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def through(proxy: Proxy, bucket: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> BucketStore:
    """A store behind the proxy."""
    sleep = storage.time.sleep
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: sleep(min(seconds, 0.05)))
    location, options = bucket
    store = open_store(location, {**options, "endpoint": f"http://127.0.0.1:{proxy.server_address[1]}"})
    assert isinstance(store, BucketStore)
    return store


@pytest.mark.case("L12", "R4")
@pytest.mark.parametrize(
    "faults",
    [[503, 503], [500], [429], ["before"], ["after"], ["after", 503], ["after", "before", "after"]],
    ids=str,
)
def test_a_new_object_is_made_once_whatever_its_answers(through: BucketStore, proxy: Proxy, faults: list[Any]) -> None:
    proxy.faults["PUT"] = list(faults)
    through.put_new("tail/1.cut", b"ours")
    assert proxy.faults["PUT"] == []
    assert through.get("tail/1.cut") == b"ours"
    with pytest.raises(Exists):
        through.put_new("tail/1.cut", b"theirs")
    assert through.get("tail/1.cut") == b"ours"


@pytest.mark.case("L12")
def test_a_name_that_another_took_while_our_answers_were_lost_is_not_ours(through: BucketStore, proxy: Proxy) -> None:
    through.put_new("tail/1.cut", b"theirs")
    proxy.faults["PUT"] = ["before", 503]
    with pytest.raises(Exists):
        through.put_new("tail/1.cut", b"ours")
    assert through.get("tail/1.cut") == b"theirs"


@pytest.mark.case("L12")
@pytest.mark.parametrize("fault", [503, 429, "before", "half"])
def test_what_is_read_is_whole(through: BucketStore, proxy: Proxy, fault: Any) -> None:
    body = bytes(range(256)) * 4000
    through.put_new("folder/object", body)
    for read in (
        lambda: through.get("folder/object"),
        lambda: through.open("folder/object").to_pybytes(),
        lambda: through.list("folder"),
    ):
        expected = read()
        proxy.faults["GET"] = [fault]
        assert read() == expected
        assert proxy.faults["GET"] == []


@pytest.mark.case("L12")
def test_a_storage_that_refuses_on_and_on_is_given_up_and_told(through: BucketStore, proxy: Proxy) -> None:
    proxy.faults["PUT"] = [503] * 100
    with pytest.raises(StorageGone) as told:
        through.put_new("tail/1.cut", b"ours")
    assert told.value.retry and 2 < 100 - len(proxy.faults["PUT"]) < 20
    proxy.faults["PUT"] = []
    through.put_new("tail/1.cut", b"ours")


@pytest.mark.case("L12")
def test_a_lake_is_written_and_read_through_such_a_storage(
    through: BucketStore, proxy: Proxy, bucket: tuple[str, dict[str, str]]
) -> None:
    location, options = bucket
    lake: Lake = create(location, {**options, "endpoint": f"http://127.0.0.1:{proxy.server_address[1]}"})
    writer = Writer(lake, *SHAPES)
    proxy.faults = {"PUT": [503, "after", 503, "before"], "GET": [503, "before"], "HEAD": [503], "POST": [503]}
    cut(writer)
    flush(writer)
    proxy.faults = {"PUT": ["twice"]}
    cut(writer)
    expected = {"claim": [10, 20, 30], "party": [10, 20, 30]}
    assert seen(lake) == seen(create(location, options)) == expected
