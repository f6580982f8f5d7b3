"""Connection strings, and the promise that a password in one is never shown.

Both of libpq's forms are known: `postgresql://user:password@host/db?password=…` and `host=… password=…`.
"""

from __future__ import annotations

import re

from pydantic import SecretStr

MASK = "***"

_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):([^\s/]*)@")
_URL_PARAMETER = re.compile(r"([?&](?:password|sslpassword)=)([^&\s]*)", re.IGNORECASE)
_KEY_PASSWORD = re.compile(r"((?<![?&\w])(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s']\S*)", re.IGNORECASE)


def mask(text: str) -> str:
    """The text with every password in it, as URL or as `password=…`, replaced by `***`."""
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _URL_PARAMETER.sub(rf"\1{MASK}", text)
    return _KEY_PASSWORD.sub(rf"\1{MASK}", text)


def without_password(dsn: str) -> str:
    """The connection string less its password."""
    dsn = _URL_PASSWORD.sub(r"\1@", dsn)
    dsn = _URL_PARAMETER.sub(lambda m: m[1][0], dsn).replace("?&", "?").rstrip("?&")
    return _KEY_PASSWORD.sub("", dsn).strip()


class Dsn(SecretStr):
    """A PostgreSQL connection string: str() and repr() are masked, `reveal()` gives libpq what it needs."""

    def _display(self) -> str:
        return mask(self.get_secret_value())

    def reveal(self) -> str:
        return self.get_secret_value()

    @property
    def has_password(self) -> bool:
        return mask(self.get_secret_value()) != self.get_secret_value()


def is_dsn(text: str) -> bool:
    """Whether a `--source` is a connection string, not a name from the settings; libpq takes the empty one too."""
    return "=" in text or "://" in text or not text
