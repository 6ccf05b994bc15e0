"""A real browser for the tests: Debian's Chromium, which asks nobody anything by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

_QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --disable-component-update"
_ALONE = "--disable-background-networking"
# A name of somebody else's that leads here.
_NAMES = "--host-resolver-rules=MAP evil.example 127.0.0.1"
# Each window of Chromium has two pages of its own, which would cost more than ours. The last such switch counts: those
# from the second line on are Playwright's.
_WITHOUT = """WebUIOmniboxPopup WebUIOmniboxAimPopup SpareRendererForSitePerProcess
    AvoidCorsURLLoaderRestartOnRedirect AvoidUnnecessaryBeforeUnloadCheckSync DestroyProfileOnBrowserClose
    HttpsFirstBalancedModeAutoEnable HttpsUpgrades LensOverlay MediaRouter PaintHolding ThirdPartyStoragePartitioning
    AimEnabled NetworkTimeServiceQuerying OptimizationHints PreconnectToSearch"""
_FEATURES = f"--disable-features={','.join(_WITHOUT.split())}"
_CAMERA = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"


@pytest.fixture(scope="module")  # its event loop runs for as long as it does, and other files have loops of their own
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "the page is tested in Chromium: apt-get install chromium"
    expect.set_options(timeout=20_000)  # other tests run beside these
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=[*f"{_QUIET} {_ALONE} {_CAMERA}".split(), _FEATURES, _NAMES]
        )
        yield chromium
        chromium.close()
