"""A page in a real browser: Debian's Chromium, headless, no network; its layout as JSON.

python -m tests.browser REPORT FOLDER writes the screenshots of the documentation.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
]  # fmt: skip

# What is looked at: text whose contrast is too low (WCAG 2.2, 1.4.3), things wider than the page,
# what the Tab key reaches and in which order, names of graphics, levels of headings.
PROBE = """
const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
  v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
const ground = element => { for (let e = element; e; e = e.parentElement) {
  const colour = rgba(getComputedStyle(e).backgroundColor); if (colour[3] > 250) return colour; }
  return [255, 255, 255, 255]; };
const seen = e => e.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true});
document.querySelectorAll("details").forEach(d => d.open = true);
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const words = walker.currentNode.data.trim(), e = walker.currentNode.parentElement;
  if (!words || !seen(e) || e.closest("script, title, desc")) continue;
  const style = getComputedStyle(e), inked = e.closest("svg") ? style.fill : style.color;
  const [a, b] = [luminance(rgba(inked)), luminance(ground(e))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
  const large = size >= 24 || (size >= 18.6 && bold);
  const ratio = (a + .05) / (b + .05);
  if (ratio < (large ? 3 : 4.5)) faint.push([words.slice(0, 40), +ratio.toFixed(2)]);
}
const tabs = [...document.querySelectorAll("a[href], summary, [tabindex]")].filter(
  e => seen(e) && e.tabIndex >= 0);
const result = {
  faint,
  width: innerWidth, scrolls: document.documentElement.scrollWidth,
  wide: [...document.body.querySelectorAll("*")].filter(e => seen(e) && !e.closest(".scroll, .skip")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
  sideways: [...document.querySelectorAll(".scroll")].filter(
    e => seen(e) && e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute("aria-label")),
  tabs: tabs.map(e => (e.getAttribute("aria-label") || e.textContent).trim().slice(0, 40)),
  tabindexes: tabs.map(e => e.tabIndex),
  unnamed: [...document.querySelectorAll("svg, [role=region], a, summary, nav")].filter(
    e => !(e.getAttribute("aria-label") || e.textContent).trim()).map(e => e.outerHTML),
  cut: [...document.querySelectorAll("svg text")].filter(e => seen(e) && (() => {
    const box = e.getBBox(), view = e.ownerSVGElement.viewBox.baseVal;
    return box.x < view.x - 1 || box.x + box.width > view.x + view.width + 1; })()
  ).map(e => e.textContent),
  headings: [...document.querySelectorAll("h1, h2, h3, h4")].map(e => +e.tagName[1]),
  landmarks: ["main", "nav", "header"].filter(name => document.querySelector(name)),
  cells: [...document.querySelectorAll("th")].filter(e => !e.scope || !e.textContent.trim()).length,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  answer: document.querySelector(".answer").getBoundingClientRect().bottom,
};
document.body.replaceChildren(Object.assign(document.createElement("pre"),
  {id: "result", textContent: JSON.stringify(result)}));
"""


def start(profile, *words):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def scheme(dark):
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def look(html, folder, *, width, dark=False):
    """Lay a page out at a width; return what PROBE found. The page's own policy is taken off."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    page = folder / "probed.html"
    # an iframe's width is the page's: a window narrower than 500 pixels is not to be had
    probed = html.replace("</body>", f"<script>{PROBE}</script></body>")
    page.write_text(probed, encoding="utf-8")
    outer = folder / "outer.html"
    outer.write_text(
        f'<iframe src="{page.name}" width="{width}" height="900" style="border:0"></iframe>'
        "<script>onload = () => { document.body.textContent = "
        'document.querySelector("iframe").contentDocument.getElementById("result").textContent }'
        "</script>",
        encoding="utf-8",
    )
    done = start(
        folder / "profile", scheme(dark), "--allow-file-access-from-files", "--dump-dom",
        outer.as_uri(),
    )  # fmt: skip
    found = re.search(r"(\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def photograph(path, folder, *, to, width, height, dark=False):
    """Write a screenshot of a file as PNG."""
    words = [f"--screenshot={to}", f"--window-size={width},{height}", scheme(dark)]
    start(folder / "profile", *words, path.as_uri())


def print_pdf(path, folder, *, to, dark=False):
    """Print a file as a person who prints it, without the browser's header and footer."""
    words = [f"--print-to-pdf={to}", "--no-pdf-header-footer", scheme(dark)]
    start(folder / "profile", *words, path.as_uri())


def main(report, folder):
    """Write the first screen of a report, on a desk and on a dark phone."""
    if CHROMIUM is None:
        sys.exit("no Chromium: the screenshots of the report stay as they were")
    with tempfile.TemporaryDirectory() as scratch:
        for name, view in {
            "desk": {"width": 1_000, "height": 760},
            "phone": {"width": 500, "height": 900, "dark": True},
        }.items():
            to = Path(folder, f"report-{name}.png").resolve()
            photograph(Path(report).resolve(), Path(scratch), to=to, **view)


if __name__ == "__main__":
    main(*sys.argv[1:])
