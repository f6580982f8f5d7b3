"""The Compose file keeps the rules that its users rely on, and docs/images.md tells the truth about it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from claimhouse.distributed import versions
from claimhouse.distributed.compose import init, lake_environment, lay_notebooks
from claimhouse.distributed.topology import Secrets
from claimhouse.lake.storage import open_store

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
OWN = "claimhouse-stack"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_the_services_are_those_that_users_know(services: dict[str, dict[str, Any]]) -> None:
    known = {"postgres", "kafka", "connect", "pyspark-app", "jupyter-lab", "trino", "metabase", "s3", "glue", "init"}
    known |= {"book", "rules", "console"}
    assert known <= services.keys()


def test_images_and_their_list_agree(services: dict[str, dict[str, Any]]) -> None:
    listed = set(re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "images.md").read_text(), re.MULTILINE))
    named = {s["image"] for s in services.values() if not s["image"].startswith(OWN)}
    base = re.search(r"^FROM (\S+)", (ROOT / "stack" / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert listed == named | {base[1]}


def test_health_checks_call_only_programs_that_the_list_has(services: dict[str, dict[str, Any]]) -> None:
    text = (ROOT / "docs" / "images.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    programs = {image.partition(":")[0]: re.findall(r"`([^`]+)`", words) for image, words in rows}
    programs[OWN] = programs["python"]
    for name, service in services.items():
        kind, *words = service.get("healthcheck", {}).get("test", ["CMD", "sh"])
        called = words[0].split()[0] if kind == "CMD-SHELL" else words[0]
        assert called in programs[service["image"].partition(":")[0]], name


def test_images_have_the_versions_that_the_native_stack_runs(services: dict[str, dict[str, Any]]) -> None:
    assert services["kafka"]["image"].endswith(":" + versions.KAFKA)
    assert services["connect"]["image"].endswith(":" + versions.KAFKA)
    assert services["trino"]["image"].endswith(":" + versions.TRINO)
    assert services["s3"]["image"].endswith(":" + versions.VERSITYGW)


def test_every_port_is_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    ports = [p for s in services.values() for p in s.get("ports", ())]
    assert ports and all(p.startswith("127.0.0.1:") for p in ports)
    assert not any("ports" in services[s] for s in ("kafka", "connect", "glue", "init", "pyspark-app"))


def test_every_lasting_service_has_a_health_check_a_limit_and_restarts(services: dict[str, dict[str, Any]]) -> None:
    lasting = {n: s for n, s in services.items() if n not in ("init", "plugins")}
    assert all("healthcheck" in s and s["restart"] == "unless-stopped" for s in lasting.values())
    assert sum(_megabytes(s["mem_limit"]) for s in lasting.values()) <= 7808  # of 8 GB; the rest is the system's


def test_no_password_stands_in_the_file(services: dict[str, dict[str, Any]]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert not re.search(r"(?i)(password|secret|token)\s*[:=]\s*\S", text)
    assert all("etc:/stack" in " ".join(s.get("volumes", [])) for n, s in services.items() if n in ("postgres", "s3"))


def test_init_makes_secrets_once_and_keeps_them(tmp_path: Path) -> None:
    assert init(str(tmp_path)) == 0
    first = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert init(str(tmp_path)) == 0
    assert {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == first
    keys = Secrets.load(tmp_path / "secrets.json")
    assert repr(keys) == "Secrets(***)"
    assert (tmp_path / "secrets" / "s3_key").read_text() == keys.s3_key
    assert keys.postgres not in (tmp_path / "etc" / "connect" / "connect.properties").read_text()


def test_notebooks_are_laid_once_and_a_users_own_stay(tmp_path: Path, services: dict[str, dict[str, Any]]) -> None:
    lab = services["jupyter-lab"]
    assert lab["entrypoint"][-3:] == ["/stack", "/examples", "/notebooks"]
    assert {"notebooks:/notebooks", "etc:/stack:ro", "./notebooks:/examples:ro"} == set(lab["volumes"])
    names = sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
    (tmp_path / names[0]).write_text("mine")
    assert lay_notebooks(ROOT / "notebooks", tmp_path) == names[1:]
    assert lay_notebooks(ROOT / "notebooks", tmp_path) == []
    assert (tmp_path / names[0]).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert (tmp_path / names[1]).read_bytes() == (ROOT / "notebooks" / names[1]).read_bytes()


def test_kernels_find_the_stacks_lake_by_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(str(tmp_path))
    for name, value in lake_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    store = open_store(os.environ["CLAIMHOUSE_LAKE_LOCATION"])
    keys = Secrets.load(tmp_path / "secrets.json")
    assert store.location == "s3://claimhouse/lake"
    assert store.delta_options == {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://s3:7070",
        "AWS_ACCESS_KEY_ID": keys.s3_key,
        "AWS_SECRET_ACCESS_KEY": keys.s3_secret,
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONDITIONAL_PUT": "etag",
    }


def _megabytes(limit: str) -> int:
    return int(limit[:-1]) * (1024 if limit.endswith("g") else 1)
