"""Draw the PNG icons of the installed app from public/icon.svg, with Chromium."""

from __future__ import annotations

import struct
from pathlib import Path

from playwright.sync_api import sync_playwright

PUBLIC = Path(__file__).resolve().parent.parent / "public"
# A maskable icon keeps its drawing inside the middle 80 % (W3C Web App Manifest, maskable icons).
SHAPES = (("icon-192", 192, 1.0), ("icon-512", 512, 1.0), ("icon-maskable-512", 512, 0.78))


def main() -> None:
    drawing = (PUBLIC / "icon.svg").read_text()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, size, scale in SHAPES:
            page = browser.new_page(viewport={"width": size, "height": size})
            ground = "#0d5c6e" if scale < 1 else "transparent"
            page.set_content(
                f"<style>body{{margin:0;background:{ground};display:grid;place-items:center;"
                f"height:100vh}}svg{{width:{100 * scale}%}}</style>{drawing}"
            )
            page.screenshot(path=str(PUBLIC / f"{name}.png"), omit_background=True)
        page = browser.new_page(viewport={"width": 32, "height": 32})
        page.set_content(f"<style>body{{margin:0}}</style>{drawing}")
        (PUBLIC / "favicon.ico").write_bytes(_icon(page.screenshot(omit_background=True), 32))
        browser.close()


def _icon(png: bytes, size: int) -> bytes:
    """Wrap a PNG as an .ico: what browsers ask for on pages that name no icon, the issuer's own."""
    directory = struct.pack("<HHH", 0, 1, 1)
    entry = struct.pack("<BBBBHHII", size, size, 0, 0, 1, 32, len(png), len(directory) + 16)
    return directory + entry + png


if __name__ == "__main__":
    main()
