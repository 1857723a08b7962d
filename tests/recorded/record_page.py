"""A running server's address, one of its admin tokens and a folder → pictures of its page in that folder.

`python -m tests.recorded.record_page http://127.0.0.1:8080 TOKEN tests/recorded`, for the README.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fixtures.browser import Tab

#: Width and height; a phone's page is cut where its screen ends.
SIZES = {"page": (1200, 1030), "page-phone": (390, 844)}
#: Charts want something to draw.
_WATCHED_S = 40.0


def main() -> None:
    address, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser is not None, "a browser that is made of Chromium"
    with tempfile.TemporaryDirectory() as profile:
        tab = Tab(Path(browser), Path(profile))
        tab.open(address, *SIZES["page"])
        tab.until("!document.querySelector('#entrance').hidden")
        tab.write("#token", token)
        tab.click("#enter button")
        tab.until("!document.querySelector('#status').hidden")
        time.sleep(_WATCHED_S)
        for name, (width, height) in SIZES.items():
            tab.resize(width, height)
            tab.picture(folder / f"{name}.png", whole=False)
        tab.close()


if __name__ == "__main__":
    main()
