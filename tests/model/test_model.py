"""The heart of the tests: whatever the application does and whenever we are killed, the lake equals PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.model.harness import Round

ROUNDS = int(os.environ.get("CLAIMHOUSE_MODEL_ROUNDS", "3"))
FIRST = int(os.environ.get("CLAIMHOUSE_MODEL_SEED", "200000"))  # the soak draws its seeds anew


@pytest.mark.case("N2", "O4", "O8", "O10", "O11", "L1")
@pytest.mark.model
@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
def test_the_lake_equals_postgres_now_and_at_every_past_commit(seed: int, postgres: Any, tmp_path: Path) -> None:
    print(f"seed {seed}")
    played = Round(seed, postgres.dsn, tmp_path)
    played.play()
    assert played.kills > 0
    assert played.compared > 0
    print(f"{played.compared} states, {played.by_time} of them by time too, {played.histories} histories")
