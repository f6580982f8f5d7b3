"""Where a lake's objects lie: a local folder or an S3 bucket, with one promise that the whole format rests on.

`put_new` creates an object only if it does not exist, whole or not at all, and returns once it is durable. Locally
that is: temp file in the same folder, write, fsync, link (fails if the name is taken), unlink, fsync of the folder. On
S3 it is a conditional PUT; where its answer was lost, the object is read back and compared.

DO put data in a temp file of the same folder, fsync it, link it, fsync the folder.
DON'T rename over a name (it replaces silently), and don't believe a name whose folder was never fsynced.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import re
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.fsspec import FsspecStore
from obstore.store import S3Store as ObjectStore

from claimhouse.errors import LakeError, SettingsError, StorageGone, UsageError
from claimhouse.failpoint import due, hit

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Bytes = bytes | memoryview | pa.Buffer
_TEMP = ".tmp"
_ABANDONED = 600.0  # seconds after which nobody writes to a temp file any more: its writer was killed
_ODD = re.compile(r"[\[\]^|\\\x00-\x1f]|%[0-9A-Fa-f]{2}")  # delta-rs writes elsewhere or not at all


class Exists(LakeError):
    """An object of that name is already there."""


def open_store(location: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Store:
    """The store behind a lake's location: a folder's path, or `s3://bucket/prefix`.

    Options of S3 (each falls back to the AWS_* environment): endpoint, region, allow_http, access_key_id,
    secret_access_key, session_token. Raises SettingsError.
    """
    text = os.fspath(location)
    if text.startswith("s3://"):
        return BucketStore(text, options or {})
    if "://" in text and not text.startswith("file://"):
        raise SettingsError(
            f"a lake cannot lie at {text.split('://')[0]}://", hint="use a folder or s3://bucket/prefix"
        )
    store = FolderStore(Path(text.removeprefix("file://")))
    if odd := _ODD.search(store.root.as_posix()):
        raise SettingsError(
            f"a lake cannot lie in a folder with {odd[0]!r} in its path", hint="Delta tables cannot be written there"
        )
    return store


def s3_settings(options: Mapping[str, str]) -> dict[str, str | None]:
    """endpoint, region, access_key_id, secret_access_key, session_token: of the options, or else of AWS_* variables."""
    return {
        "endpoint": _option(options, "endpoint", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "region": _option(options, "region", "AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        "access_key_id": _option(options, "access_key_id", "AWS_ACCESS_KEY_ID"),
        "secret_access_key": _option(options, "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        "session_token": _option(options, "session_token", "AWS_SESSION_TOKEN"),
    }


class Store:
    """Objects by key (`control/lake.json`); keys use `/` on every system."""

    local: bool
    location: str
    delta_options: dict[str, str]

    def put_new(self, key: str, data: Bytes | list[Bytes], mark: str = "") -> None:
        """Create an object durably, of bytes or of several one after the other. `mark`: prefix of its failpoints.

        Raises Exists, StorageGone.
        """
        raise NotImplementedError

    def copy(self, key: str, target: str) -> None:
        """Give an object that never changes a second name, durably; it may have it already. Raises StorageGone."""
        raise NotImplementedError

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises KeyError."""
        raise NotImplementedError

    def open(self, key: str) -> pa.Buffer:
        """An object's bytes as mapped memory that stays readable after the object is deleted. Raises KeyError."""
        raise NotImplementedError

    def end(self, key: str, size: int) -> bytes:
        """The last `size` bytes of an object, or all of a smaller one. Raises KeyError."""
        raise NotImplementedError

    def exists(self, key: str) -> bool:
        raise NotImplementedError

    def list(self, prefix: str) -> list[str]:
        """The names of the objects that lie directly in a folder, sorted."""
        raise NotImplementedError

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders that lie directly in a folder, sorted."""
        raise NotImplementedError

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, in this order; what is absent is no error."""
        raise NotImplementedError

    def uri(self, key: str) -> str:
        """How delta-rs and DuckDB name that key."""
        raise NotImplementedError

    def sync(self, keys: Iterable[str]) -> None:
        """Make objects durable that another library wrote, and the folders that hold them."""

    def sweep(self, prefix: str) -> None:
        """Remove what a killed writer left half-written in a folder; what may still be written stays."""

    def attach(self, conn: DuckDBPyConnection) -> None:
        """Let a DuckDB connection read `uri`s."""


class FolderStore(Store):
    """A lake in a local folder."""

    local = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.location = str(self.root)
        self.delta_options = {}
        self._anchored: set[Path] = set()

    def put_new(self, key: str, data: Bytes | list[Bytes], mark: str = "") -> None:
        target = self.root / key
        try:
            self._make(target.parent)
            self._write(target, _pieces(data), mark)
        except FileExistsError:
            raise Exists(f"{key} already exists") from None
        except OSError as error:
            raise _failed(key, error, "written") from error

    def _write(self, target: Path, pieces: list[memoryview], mark: str) -> None:
        temp = target.with_name(
            f".{target.name}.{os.getpid()}-{threading.get_ident()}-{random.getrandbits(32):x}{_TEMP}"
        )
        if mark:
            hit(f"{mark}.before_write")
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                if mark and due(f"{mark}.half_written"):
                    whole = b"".join(pieces)
                    _write_all(handle, [memoryview(whole)[: len(whole) // 2]])
                if mark:
                    hit(f"{mark}.half_written")
                _write_all(handle, pieces)
                os.fsync(handle)
            finally:
                os.close(handle)
            if mark:
                hit(f"{mark}.before_link")
            os.link(temp, target)
        finally:
            with contextlib.suppress(OSError):
                temp.unlink()
        _fsync(target.parent)
        if mark:
            hit(f"{mark}.after_link")

    def copy(self, key: str, target: str) -> None:
        link = self.root / target
        with _changing(target):
            self._make(link.parent)
            with contextlib.suppress(FileExistsError):
                os.link(self.root / key, link)
            _fsync(link.parent)

    def _make(self, folder: Path) -> None:
        if folder not in self._anchored or not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._anchor(folder)

    def _anchor(self, folder: Path) -> None:
        """Make a folder's own name durable, and those of the folders above it; once in a process."""
        for inner in (folder, *folder.parents):
            if inner in self._anchored or (inner != self.root and self.root not in inner.parents):
                break
            with contextlib.suppress(PermissionError):
                _fsync(inner.parent)
            self._anchored.add(inner)

    def get(self, key: str) -> bytes:
        with _inside(key):
            return (self.root / key).read_bytes()

    def open(self, key: str) -> pa.Buffer:
        with _inside(key):
            return _mapped(str(self.root / key))

    def end(self, key: str, size: int) -> bytes:
        with _inside(key), (self.root / key).open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            return file.read()

    def exists(self, key: str) -> bool:
        try:
            with _inside(key):
                (self.root / key).stat()
        except KeyError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        return self._names(prefix, lambda entry: not entry.name.endswith(_TEMP) and entry.is_file())

    def folders(self, prefix: str) -> list[str]:
        return self._names(prefix, os.DirEntry.is_dir)

    def _names(self, prefix: str, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
        try:
            with _inside(prefix), os.scandir(self.root / prefix) as found:
                return sorted(entry.name for entry in found if wanted(entry))
        except KeyError:
            return []

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with _changing(key):
                (self.root / key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        return str(self.root / key)

    def sync(self, keys: Iterable[str]) -> None:
        leaves: set[Path] = set()
        for key in keys:
            path = self.root / key
            with _changing(key):
                _fsync(path)
            leaves.add(path.parent)
        for leaf in leaves:
            with _changing(str(leaf.relative_to(self.root))):
                _fsync(leaf)
                self._anchor(leaf)

    def sweep(self, prefix: str) -> None:
        begun = time.time() - _ABANDONED
        for name in self._names(prefix, lambda entry: entry.name.startswith(".") and entry.name.endswith(_TEMP)):
            path = self.root / prefix / name
            with _changing(f"{prefix}/{name}"), contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < begun:
                    path.unlink()


class BucketStore(Store):
    """A lake in an S3 bucket, or in what speaks S3."""

    local = False
    attempts = 7

    def __init__(self, location: str, options: Mapping[str, str]) -> None:
        parts = urlsplit(location)
        self.location = location.rstrip("/")
        self.prefix = parts.path.strip("/")
        given = s3_settings(options)
        config: Any = {f"aws_{name}": value for name, value in given.items() if value}
        http = _http_allowed(str(given["endpoint"] or ""), _option(options, "allow_http", "AWS_ALLOW_HTTP"))
        self.delta_options = {name.upper(): value for name, value in config.items()}
        if given["endpoint"]:
            self.delta_options["AWS_ENDPOINT_URL"] = self.delta_options.pop("AWS_ENDPOINT")
        self.delta_options |= {"AWS_ALLOW_HTTP": str(http).lower(), "AWS_CONDITIONAL_PUT": "etag"}
        self._config: Any = config
        self._client: Any = {
            "allow_http": http,
            "timeout": timedelta(seconds=120),
            "connect_timeout": timedelta(seconds=10),
        }
        self._reads = ObjectStore(
            parts.netloc,
            prefix=self.prefix or None,
            config=config,
            client_options=self._client,
            retry_config={"max_retries": self.attempts, "retry_timeout": timedelta(seconds=120)},
        )
        # A repeated conditional PUT must be ours to judge, so the client itself repeats none.
        once: Any = {"max_retries": 0}
        self._writes = ObjectStore(
            parts.netloc, prefix=self.prefix or None, config=config, client_options=self._client, retry_config=once
        )

    def put_new(self, key: str, data: Bytes | list[Bytes], mark: str = "") -> None:
        if mark:
            hit(f"{mark}.before_write")
            hit(f"{mark}.half_written")
            hit(f"{mark}.before_link")
        body = b"".join(_pieces(data))
        unsure = False  # an attempt may have succeeded although its answer did not come
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(min(5.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.0))
            try:
                obstore.put(self._writes, key, body, mode="create")
                break
            except AlreadyExistsError:
                if self._lost(key, body, unsure):
                    break
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise _refused(key, error) from error
            except BaseError as error:
                unsure, last = True, error
                if attempt == self.attempts - 1:
                    raise _gone(key, last) from last
        else:
            raise StorageGone(f"{key} could not be created: the storage contradicts itself", hint="try again")
        if mark:
            hit(f"{mark}.after_link")

    def copy(self, key: str, target: str) -> None:
        with _reading(key):
            obstore.copy(self._reads, key, target)

    def _lost(self, key: str, body: bytes, unsure: bool) -> bool:
        """Whether the object that stands in the way is our own. Raises Exists when it is another's."""
        try:
            found = self.get(key)
        except KeyError:
            return False  # S3 answers 409 while another PUT of the key is under way: try again
        if unsure and found == body:
            return True
        raise Exists(f"{key} already exists")

    def get(self, key: str) -> bytes:
        with _reading(key):
            return bytes(obstore.get(self._reads, key).bytes())

    def open(self, key: str) -> pa.Buffer:
        """Small objects in memory, larger ones in an unlinked temp file, so that memory stays bounded."""
        with _reading(key):
            answer = obstore.get(self._reads, key)
            if answer.meta["size"] <= 4 << 20:
                return pa.py_buffer(bytes(answer.bytes()))
            with tempfile.NamedTemporaryFile(prefix="claimhouse-") as file:
                for chunk in answer.stream(4 << 20):
                    file.write(chunk)
                file.flush()
                return _mapped(file.name)

    def end(self, key: str, size: int) -> bytes:
        with _reading(key):
            return bytes(obstore.get(self._reads, key, options={"range": {"suffix": size}}).bytes())

    def exists(self, key: str) -> bool:
        try:
            with _reading(key):
                obstore.head(self._reads, key)
        except KeyError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        return sorted(meta["path"].rpartition("/")[2] for meta in self._listed(prefix)["objects"])

    def folders(self, prefix: str) -> list[str]:
        return sorted(path.rstrip("/").rpartition("/")[2] for path in self._listed(prefix)["common_prefixes"])

    def _listed(self, prefix: str) -> Any:
        """What lies in a folder. The client repeats what was refused, but no listing that broke off in its answer."""
        until = time.monotonic() + 5.0  # beyond, it has repeated enough itself
        while True:
            try:
                with _reading(prefix):
                    return obstore.list_with_delimiter(self._reads, prefix)
            except StorageGone:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with contextlib.suppress(KeyError), _reading(key):
                obstore.delete(self._reads, key)

    def uri(self, key: str) -> str:
        return f"{self.location}/{key}"

    def attach(self, conn: DuckDBPyConnection) -> None:
        conn.register_filesystem(FsspecStore("s3", config=self._config, client_options=self._client))


def _http_allowed(endpoint: str, said: str | None) -> bool:
    """Whether keys and rows may go unencrypted: where it was said, or where they do not leave the machine."""
    if said is not None:
        return str(said).lower() in ("1", "true", "yes")
    place = urlsplit(endpoint)
    if place.scheme != "http":
        return False
    if place.hostname in ("localhost", "127.0.0.1", "::1"):
        return True
    raise UsageError(
        f"the storage's endpoint {endpoint} is not encrypted", hint="use https, or say so: set allow_http to true"
    )


def _option(options: Mapping[str, str], name: str, *variables: str) -> str | None:
    for candidate in (name, f"aws_{name}", f"AWS_{name.upper()}"):
        if options.get(candidate):
            return str(options[candidate])
    return next((os.environ[v] for v in variables if os.environ.get(v)), None)


@contextlib.contextmanager
def _inside(key: str) -> Any:
    """Map what a folder says to who reads in it to our errors."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise KeyError(key) from None
    except OSError as error:
        raise _failed(key, error, "read") from error


@contextlib.contextmanager
def _changing(key: str) -> Any:
    """Map what a folder says to who writes into it to our errors."""
    try:
        yield
    except OSError as error:
        raise _failed(key, error, "written") from error


@contextlib.contextmanager
def _reading(key: str) -> Any:
    """Map what an object store says to our errors."""
    try:
        yield
    except FileNotFoundError:
        raise KeyError(key) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _refused(key, error) from error
    except BaseError as error:
        raise _gone(key, error) from error


def _refused(key: str, error: Exception) -> LakeError:
    return LakeError(f"the storage refuses {key} ({type(error).__name__})", hint="check the rights and AWS_* variables")


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def _failed(key: str, error: OSError, done: str) -> LakeError | StorageGone:
    """Our error for a folder's: no rights is nothing to try again, all else is the storage."""
    if error.filename2 is not None and error.errno in _NO_LINKS:
        hint = "a lake needs hard links (ext4, xfs, btrfs, zfs) and one user that writes; or put it into a bucket"
        return LakeError(f"{key} could not be linked to its name: {os.strerror(error.errno)}", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = "the storage is read-only" if error.errno == errno.EROFS else os.strerror(error.errno)
        hint = "ask for rights on the lake's folder"
        return LakeError(f"{key} may not be {done} by this user: {reason}", hint=hint)
    return _gone(key, error)


def _gone(key: str, error: Exception) -> StorageGone:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
    hint = "free some space; the run goes on where it stopped" if full else "check the storage, then run again"
    return StorageGone(f"{key} could not be read or written: {reason}", hint=hint)


def _pieces(data: Bytes | list[Bytes]) -> list[memoryview]:
    """What is to be written, byte by byte countable."""
    pieces = data if isinstance(data, list) else [data]
    return [memoryview(piece).cast("B") for piece in pieces if len(piece)]


def _write_all(handle: int, pieces: list[memoryview]) -> None:
    left = pieces[::-1]
    while left:
        some = left[: -_AT_ONCE - 1 : -1]
        written = os.writev(handle, some)
        while left and written >= len(left[-1]):
            written -= len(left.pop())
        if written:
            left[-1] = left[-1][written:]


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_AT_ONCE = 1000  # pieces that the kernel takes in one call
_WORTH = 1 << 20  # bytes that are worth a call to the kernel
_MAPS: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()  # by address, while in use


def _mapped(path: str) -> pa.Buffer:
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return pa.py_buffer(b"")
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = pa.py_buffer(found)
    _MAPS[buffer.address] = found
    return buffer


def let_go(buffer: pa.Buffer) -> None:
    """Have the kernel take back the memory of a mapped object's pages; whoever reads on gets them again."""
    if buffer.size >= _WORTH and (found := _MAPS.get(buffer.address)) is not None:
        found.madvise(mmap.MADV_DONTNEED)
