"""Addresses and secrets of a stack, as files and as an environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from claimhouse.distributed.topology import Secrets, Topology, environment
from claimhouse.lake.storage import s3_settings
from claimhouse.settings import load


def test_the_environment_is_what_our_commands_read(monkeypatch: pytest.MonkeyPatch) -> None:
    topology, keys = Topology(at={"s3": "127.0.0.1:7070"}, region="eu-central-1"), Secrets.random()
    found = environment(topology, keys)
    settings = load(environment=found)
    assert settings.lake.location == topology.lake
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert s3_settings(settings.storage_options()) == {
        "endpoint": "http://127.0.0.1:7070",
        "region": "eu-central-1",
        "access_key_id": keys.s3_key,
        "secret_access_key": keys.s3_secret,
        "session_token": None,
    }


def test_with_aws_no_key_and_no_endpoint_is_told() -> None:
    found = environment(Topology(s3_endpoint=None, at={}), Secrets.random())
    assert found.keys() == {"CLAIMHOUSE_LAKE_LOCATION", "AWS_REGION"}


def test_secrets_of_an_older_version_are_completed_and_kept(tmp_path: Path) -> None:
    older = replace(Secrets.random(), console="")
    older.save(tmp_path / "secrets.json")
    made = Secrets.load(tmp_path / "secrets.json").completed()
    assert len(made.console) >= 20
    assert replace(made, console="") == older
    assert made.completed() == made
