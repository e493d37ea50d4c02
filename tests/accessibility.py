"""The report under axe-core, in Chromium: python -m tests.accessibility AXE [REPORT …].

AXE is axe.min.js of the npm package axe-core (`make accessibility` fetches it). Without a REPORT,
the one of the tests is looked at: every chapter, hostile names among them.
"""

import base64
import json
import re
import sys
import tempfile
from pathlib import Path

from tests import browser

RUN = """
document.querySelectorAll("details").forEach(each => each.open = true);
axe.run(document, {resultTypes: ["violations", "incomplete"]}).then(found => {
  const told = kind => found[kind].map(rule => ({
    rule: rule.id, impact: rule.impact, help: rule.help,
    where: rule.nodes.map(node => node.target.join(" ")).slice(0, 5)}));
  const text = JSON.stringify({
    violations: told("violations"), incomplete: told("incomplete"), passes: found.passes.length});
  document.body.replaceChildren(Object.assign(document.createElement("pre"),
    {id: "result", textContent: btoa(unescape(encodeURIComponent(text)))}));
});
"""
VIEWS = [(1280, False), (1280, True), (500, False), (500, True)]  # width, dark


def examine(html, axe, folder, *, width, dark):
    """Return what axe says about a page: violations, what it could not decide, rules passed."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    page = folder / "axe.html"
    script = f"<script>{axe}</script><script>{RUN}</script>"
    page.write_text(html.replace("</body>", f"{script}</body>"), encoding="utf-8")
    done = browser.start(
        folder / "profile", browser.scheme(dark), f"--window-size={width},900",
        "--virtual-time-budget=20000", "--dump-dom", page.as_uri(),
    )  # fmt: skip
    found = re.search(r'<pre id="result">([\w+/=]+)</pre>', done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(base64.b64decode(found[1]))


def main(axe, *reports):
    from tests.test_html import whole

    pages = {path: Path(path).read_text(encoding="utf-8") for path in reports} or {"": whole()}
    bad = 0
    for name, html in pages.items():
        for width, dark in VIEWS:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(axe).read_text(encoding="utf-8")
                found = examine(html, source, Path(folder), width=width, dark=dark)
            bad += len(found["violations"])
            view = {"report": name, "width": width, "dark": dark}
            sys.stdout.write(json.dumps(view | found) + "\n")
    return bad


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
