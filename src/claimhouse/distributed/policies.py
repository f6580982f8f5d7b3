"""The IAM policies of a lake on AWS: what each role must be allowed, and nothing beyond.

`policy(role, lake)` gives the document of one role, to be attached to whatever carries it (an instance profile, a
user). Rights on objects end at the lake's prefix, those on the catalog at the source's databases.
"""

from __future__ import annotations

from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from claimhouse.errors import UsageError

Role = Literal["writer", "reader", "trino"]
ROLES: tuple[str, ...] = get_args(Role)
_READ = ["s3:GetObject"]
_WRITE = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
_GLUE_READ = ["GetDatabase", "GetDatabases", "GetTable", "GetTables", "GetPartitions"]
_GLUE_WRITE = ["CreateDatabase", "CreateTable", "UpdateTable", "DeleteTable"]


def policy(
    role: str, lake: str, *, sources: tuple[str, ...] = ("main",), region: str = "*", account: str = "*"
) -> dict[str, Any]:
    """The policy document of a role for the lake at `s3://bucket/prefix`.

    writer: what captures (either runtime) needs. reader: queries and figures of a lake that others write
    (with --no-access-log, or [query] access_log = false; who disposes of indicators writes).
    trino: what Trino needs to show it, the Glue databases `<source>__*` of the sources among it. Raises UsageError.
    """
    place = urlsplit(lake)
    if place.scheme != "s3" or not place.netloc:
        raise UsageError(f"{lake} is no bucket", hint="give the lake as s3://bucket/prefix")
    if role not in ROLES:
        raise UsageError(f"no role is called {role}", hint="one of " + ", ".join(ROLES))
    bucket, prefix = f"arn:aws:s3:::{place.netloc}", place.path.strip("/")
    below = f"{prefix}/" if prefix else ""
    statements = [
        {"Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket], **_within(prefix)},
        {"Sid": "Read", "Effect": "Allow", "Action": _READ, "Resource": [f"{bucket}/{below}*"]},
    ]
    if role == "writer":
        statements.append({"Sid": "Write", "Effect": "Allow", "Action": _WRITE, "Resource": [f"{bucket}/{below}*"]})
    if role == "trino":
        warehouse = f"{bucket}/{below}warehouse/*"
        statements.append({"Sid": "Write", "Effect": "Allow", "Action": _WRITE, "Resource": [warehouse]})
        glue = f"arn:aws:glue:{region}:{account}:"
        named = [f"{glue}{kind}/{s}__*" for s in sources for kind in ("database", "table")]
        actions = [f"glue:{name}" for name in (*_GLUE_READ, *_GLUE_WRITE)]
        statements.append(
            {"Sid": "Catalog", "Effect": "Allow", "Action": actions, "Resource": [f"{glue}catalog", *named]}
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _within(prefix: str) -> dict[str, Any]:
    """The condition that keeps a listing inside the lake."""
    if not prefix:
        return {}
    return {"Condition": {"StringLike": {"s3:prefix": [prefix, f"{prefix}/*"]}}}
