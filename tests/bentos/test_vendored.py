"""What the console brings along from others: each file is listed, has its hash and licence, and is used."""

import hashlib
import json
import re
from pathlib import Path

import bentos

CONSOLE = Path(bentos.__file__).parent / "console"
VENDOR = CONSOLE / "vendor"


def test_every_vendored_file_is_what_it_was_when_it_was_listed() -> None:
    listed = json.loads((VENDOR / "vendored.json").read_text())
    for entry in listed:
        assert hashlib.sha256((VENDOR / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]
        assert all((VENDOR / licence).stat().st_size > 500 for licence in entry["licence_files"])
    licences = {name for entry in listed for name in entry["licence_files"]}
    there = {p.name for p in VENDOR.iterdir()} - {"vendored.json"} - licences
    assert there == {entry["file"] for entry in listed}


def test_every_vendored_file_is_used_and_nothing_comes_from_elsewhere() -> None:
    ours = [p for p in CONSOLE.rglob("*") if p.suffix in (".js", ".html", ".css") and VENDOR not in p.parents]
    text = "\n".join(p.read_text() for p in ours)
    for entry in json.loads((VENDOR / "vendored.json").read_text()):
        assert f"/console/vendor/{entry['file']}" in text, entry["file"]
    assert not re.findall(r"""(?:src|href|from|import|url\()\s*=?\s*["'(]?https?://""", text)


def test_every_import_of_the_console_exists() -> None:
    for page in CONSOLE.rglob("*.js"):
        if VENDOR not in page.parents:
            for target in re.findall(r'from "/console/([^"]+)"', page.read_text()):
                assert (CONSOLE / target).is_file(), f"{page.name} imports {target}"
