"""What the browser is sent: vendored files unchanged, little script, nothing from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import claimhouse.console

ROOT = Path(claimhouse.console.__file__).parent
VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "htmx.LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
LIMIT = 60 << 10


def test_vendored_files_are_as_they_were_published() -> None:
    found = {f.name for f in (ROOT / "static/vendor").iterdir()} - {"README.md"}
    assert found == set(VENDORED)
    for name, digest in VENDORED.items():
        assert hashlib.sha256((ROOT / "static/vendor" / name).read_bytes()).hexdigest() == digest, name


def test_the_script_of_a_page_is_at_most_60_kb_compressed() -> None:
    layout = (ROOT / "templates/layout.html").read_text()
    scripts = re.findall(r'<script src="/static/([^"]+)"', layout)
    assert len(scripts) == 5
    assert sum(len(gzip.compress((ROOT / "static" / s).read_bytes())) for s in scripts) <= LIMIT


def test_templates_hold_no_inline_script_no_style_and_no_foreign_address() -> None:
    for file in (ROOT / "templates").iterdir():
        text = file.read_text()
        assert not re.search(r"<script(?! src=\"/static/)|<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe", text), (
            file
        )
        assert not re.search(r"(src|href|action)=\"(https?:)?//", text), file
