"""The whole line in a browser: someone clicks an item, and the list changes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from freshet.settings import Settings

CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = "FRESHET_REQUIRE_BROWSER"
START_S = 240.0
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The whole stack in a home of its own, with sixty items."""
    if not CHROMIUM.exists():
        message = f"no browser at {CHROMIUM}; install Debian's chromium to run the end-to-end test"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    home = tmp_path_factory.mktemp("line")
    env = os.environ | {"FRESHET_HOME": str(home)}
    freshet = [sys.executable, "-m", "freshet"]
    subprocess.run([*freshet, "up", "--detach", "--wait", str(START_S)], env=env, check=True)
    try:
        settings = Settings(home=home)
        items = [
            {"item_id": f"i{n}", "title": f"Item {n}", "categories": [("tea", "ink", "wool")[n % 3]]} for n in range(60)
        ]
        httpx.post(f"{settings.ingest_url}/items", json=items, timeout=10).raise_for_status()
        _await_items(settings)
        yield settings
    finally:
        subprocess.run([*freshet, "down"], env=env, check=True)


def _await_items(settings: Settings) -> None:
    give_up = time.monotonic() + 30
    while len(httpx.post(f"{settings.serve_url}/recommend", json={"user_id": "x", "k": 12}).json()["items"]) < 12:
        assert time.monotonic() < give_up, "the items have not reached serving"
        time.sleep(0.5)


def test_a_click_changes_the_list(line: Settings) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.route(
            "**/*", lambda route: route.continue_() if route.request.url.startswith(line.serve_url) else route.abort()
        )
        page.goto(f"{line.serve_url}/?user=eve")
        buttons = page.get_by_role("button", name="Click Item")
        expect(buttons.first).to_be_visible()
        before = buttons.evaluate_all("all => all.map(b => b.getAttribute('aria-label'))")
        assert len(before) == 12
        clicked = before[0]
        buttons.first.click()
        expect(page.get_by_role("status")).to_contain_text("Changed in", timeout=15_000)
        after = page.get_by_role("button", name="Click Item").evaluate_all(
            "all => all.map(b => b.getAttribute('aria-label'))"
        )
        assert after != before
        assert clicked not in after  # what is liked is not recommended again
        expect(page.get_by_label("What is known")).to_contain_text(clicked.removeprefix("Click "))
        page.goto(f"{line.serve_url}/#line")
        expect(page.get_by_role("heading", name="The line")).to_be_visible()
        assert problems == []
        browser.close()
