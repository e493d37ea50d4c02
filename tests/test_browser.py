"""The report in a real browser: no script runs, nothing is asked for, whatever the names are."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curate.records import Group
from curate.report.html import render_report
from tests.hostile import TEXTS
from tests.report_records import index, mix, ranking, verification

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--dump-dom",
)  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


@contextlib.contextmanager
def served(pages):
    """Serve pages on this machine; gives the address and the list of paths asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            page = pages.get(self.path, b"")
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def payloads(address):
    """Attacks that would ask for a page of ours, or mark the document, if they were run."""
    ran = "document.documentElement.setAttribute('data-ran','1')"
    return (
        f"</style></script><script>{ran}</script>",
        f'"><img src="{address}/img" onerror="{ran}">',
        f"'><svg onload={ran}><image href={address}/image /></svg>",
        f"</title></svg><link rel=stylesheet href={address}/css>",
        f"<iframe src={address}/frame></iframe><object data={address}/object></object>",
        f"<meta http-equiv=refresh content='0;url={address}/refresh'>",
        f"<style>@import '{address}/import'; body{{background:url({address}/url)}}</style>",
        f"<form action={address}/form><input autofocus onfocus={ran}></form>",
        f"<base href={address}/base/><a href=javascript:{ran}>x</a>",
        f"<audio src={address}/audio autoplay><video poster={address}/poster>",
        f"{{{{ '{address}' }}}}<template>",
        *TEXTS,
    )


def hostile_report(address):
    """A report with an attack in every place that text from data can reach."""
    attacks = payloads(address)
    whole = "".join(attacks)
    names = tuple(f"{text}{n}" for n, text in enumerate(attacks))
    ledger = dataclasses.replace(index().ledgers[1], path=whole, error=whole, rejected={whole: 3})
    group = Group(whole, 7, terms=(whole, *attacks), examples=(whole,))
    indexed = dataclasses.replace(
        index(names),
        ledgers=(ledger,),
        groups=(group,),
        corpus=dataclasses.replace(index().corpus, inputs=attacks, text=whole, group_by=whole),
        probe=dataclasses.replace(index().probe, name=whole, revision=whole),
    )
    arms = tuple(dataclasses.replace(arm, arm=whole + arm.arm) for arm in verification().arms)
    forecast = dataclasses.replace(mix().forecast, basis=whole)
    return render_report(
        index=indexed,
        ranking=dataclasses.replace(ranking(names, target=whole), warnings=attacks),
        mix=dataclasses.replace(mix(names), folder=whole, target=whole, forecast=forecast),
        verification=dataclasses.replace(
            verification(), sentence=whole, warnings=attacks, arms=arms, target=whole, law=whole
        ),
    )


def opened(page, folder):
    """Open a page in the browser; return the document as it stands after loading."""
    home = folder / "profile"
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={home}", "--virtual-time-budget=2000", page],
        capture_output=True, timeout=120, check=False, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace")


def test_a_hostile_report_runs_nothing_and_asks_for_nothing(tmp_path):
    pages = {}
    with served(pages) as (address, asked):
        pages["/report"] = hostile_report(address).encode()
        dom = opened(f"{address}/report", tmp_path)
    assert "What was measured" in dom and "How to repeat" in dom
    assert "data-ran" not in dom.split(">", 2)[1], "a script ran"
    assert not {"<script", "<img", "<iframe", "<object", "<form", "<audio", "<video"} & {
        tag for tag in ("<script", "<img", "<iframe", "<object", "<form", "<audio", "<video")
        if tag in dom
    }  # fmt: skip
    assert asked == ["/report"]


def test_the_check_would_see_a_script_and_a_request(tmp_path):
    pages = {}
    with served(pages) as (address, asked):
        body = "".join(payloads(address)[:4])
        pages["/page"] = f"<html><body><p>{body}</p></body></html>".encode()
        dom = opened(f"{address}/page", tmp_path)
    assert 'data-ran="1"' in dom
    assert {"/page", "/img", "/css"} <= set(asked)


def test_the_policy_alone_would_stop_what_was_not_escaped(tmp_path):
    pages = {}
    with served(pages) as (address, asked):
        raw = "".join(text for text in payloads(address) if "refresh" not in text)
        pages["/raw"] = hostile_report("").replace("<main>", f"<main>{raw}", 1).encode()
        dom = opened(f"{address}/raw", tmp_path)
    assert "<img" in dom
    assert "data-ran" not in dom.split(">", 2)[1]
    assert asked == ["/raw"]
