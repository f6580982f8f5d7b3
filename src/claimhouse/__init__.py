"""claimhouse: every committed change of an insurer's PostgreSQL databases in a Delta lake, and answers from it.

    import claimhouse

    with claimhouse.open("./lake") as lake:
        claims = lake.table("claim").polars()
        paid = lake.sql("SELECT sum(amount) FROM payment").arrow()

`errors` draws the tree of what may be raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from claimhouse import errors

if TYPE_CHECKING:
    from claimhouse.query.handle import LakeHandle, open

    __version__: str

__all__ = ["LakeHandle", "__version__", "errors", "open"]


def __getattr__(name: str) -> Any:
    """The names that cost an import of the query engine, and the version, are looked up when they are first used."""
    if name in ("LakeHandle", "open"):
        from claimhouse.query import handle

        return getattr(handle, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("claimhouse")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
