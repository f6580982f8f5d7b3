"""The documents say what the code does: pages written from it are current, and names in prose exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PROSE = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/reference/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "types.md"])
def test_reference_pages_are_what_make_docs_would_write(name: str) -> None:
    assert (ROOT / "docs/reference" / name).read_text() == generator().PAGES[name](), "run: make docs"


def test_every_setting_and_type_stands_in_its_page() -> None:
    from claimhouse.postgres.types import KINDS, TYPES
    from claimhouse.settings import table

    settings, types = ((ROOT / "docs/reference" / n).read_text() for n in ("settings.md", "types.md"))
    assert [row.name for row in table() if f"| `{row.name}` |" not in settings] == []
    assert [t.name for t in (*TYPES, *KINDS) if f"| `{t.name}` |" not in types] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_the_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text))
    assert len(named) > 10
    assert sorted(n for n in named if not (ROOT / "src/claimhouse" / n).exists()) == []


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_make_targets_and_commands_in_prose_exist(page: Path) -> None:
    makefiles = "\n".join(file.read_text() for file in (ROOT / "Makefile", *ROOT.glob("*.mk")))
    targets = set(re.findall(r"^([a-z-]+):", makefiles, re.MULTILINE))
    page_text = page.read_text()
    code = "\n".join(re.findall(r"```sh\n(.*?)```", page_text, re.DOTALL) + re.findall(r"`([^`\n]+)`", page_text))
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets
    commands = {path.split()[1] for path, _ in generator().walk("claimhouse", _root())}
    assert set(re.findall(r"^claimhouse ([a-z]+)", code, re.MULTILINE)) <= commands


def _root() -> object:
    from typer.main import get_command

    from claimhouse.cli.app import app

    return get_command(app)
