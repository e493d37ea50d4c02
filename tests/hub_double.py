"""A hub on this machine: the few calls of its HTTP interface that pushing and streaming need.

Only what the official client asks is answered; files are kept in memory, a commit is a number.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

EPOCH = "2025-01-01T00:00:00.000Z"


class Hub:
    """Data sets by name: {repo: {revision: {path: bytes}}}; every request that came."""

    def __init__(self):
        self.repos, self.asked, self.sent = {}, [], 0

    def commit(self, repo, files, revision="main"):
        before = self.repos.setdefault(repo, {}).get(revision, {})
        self.repos[repo][revision] = {**before, **files}

    def sha(self, repo, revision):
        text = json.dumps(sorted((p, hashlib.sha1(b).hexdigest()) for p, b in
                                 self.repos[repo][revision].items()))  # fmt: skip
        return hashlib.sha1(text.encode()).hexdigest()

    def files(self, repo, revision):
        for branch, files in self.repos.get(repo, {}).items():
            if revision in (branch, self.sha(repo, branch)):
                return branch, files
        return None, None


def entry(path, data):
    return {
        "type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),
        "lastCommit": None,
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *_):
        pass

    def answer(self, value, *, status=200, headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, content in headers:
            self.send_header(name, content)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent += len(data)
            self.wfile.write(data)

    def missing(self, code="RepoNotFound"):
        self.answer({"error": code}, status=404, headers=[("X-Error-Code", code)])

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.asked.append(f"POST {path}")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self.hub.repos.setdefault(repo, {"main": {}})
            return self.answer({"url": f"{self.base()}/datasets/{repo}", "name": repo})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/datasets/(.+?)/branch/(.+)", path):
            branches = self.hub.repos[found[1]]
            branches.setdefault(found[2], dict(branches["main"]))
            return self.answer({})
        if re.fullmatch(r"/api/datasets/(.+?)/preupload/(.+)", path):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if found := re.fullmatch(r"/api/datasets/(.+?)/commit/(.+)", path):
            return self.take(found[1], found[2], body)
        if found := re.fullmatch(r"/api/datasets/(.+?)/paths-info/(.+)", path):
            _, files = self.hub.files(found[1], found[2])
            if files is None:
                return self.missing()
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else re.findall(
                r"paths=([^&]*)", unquote(body.decode())
            )  # fmt: skip
            infos = [entry(path, files[path]) for path in wanted if path in files]
            folders = {
                p for p in wanted if p not in files and any(f.startswith(f"{p}/") for f in files)
            }
            infos += [{"type": "directory", "path": p, "oid": "0" * 40} for p in sorted(folders)]
            return self.answer(infos)
        return self.missing("EntryNotFound")

    def take(self, repo, revision, body):
        files, branch = {}, self.hub.repos[repo].setdefault(revision, {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                branch.pop(line["value"]["path"], None)
        self.hub.commit(repo, files, revision)
        sha = self.hub.sha(repo, revision)
        url = f"{self.base()}/datasets/{repo}/commit/{sha}"
        self.answer({"commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/datasets/(.+?)/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        if found := re.fullmatch(r"/api/datasets/(.+?)/tree/([^/]+)/?(.*)", path):
            return self.tree(*found.groups())
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.info(found[1], found[2] or "main")
        return self.missing("EntryNotFound")

    do_HEAD = do_GET

    def info(self, repo, revision):
        branch, files = self.hub.files(repo, revision)
        if files is None:
            return self.missing("RevisionNotFound" if repo in self.hub.repos else "RepoNotFound")
        return self.answer({
            "id": repo, "sha": self.hub.sha(repo, branch), "private": False, "tags": [],
            "lastModified": EPOCH, "createdAt": EPOCH, "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": name} for name in sorted(files)],
        })  # fmt: skip

    def tree(self, repo, revision, folder):
        _, files = self.hub.files(repo, revision)
        if files is None:
            return self.missing()
        inside = {p: b for p, b in files.items() if not folder or p.startswith(f"{folder}/")}
        if "recursive=true" in self.path.lower():
            return self.answer([entry(path, data) for path, data in sorted(inside.items())])
        depth = len(folder.split("/")) if folder else 0
        here = {"/".join(p.split("/")[: depth + 1]) for p in inside}
        return self.answer([
            entry(p, files[p]) if p in files
            else {"type": "directory", "path": p, "oid": "0" * 40} for p in sorted(here)
        ])  # fmt: skip

    def file(self, repo, revision, path):
        branch, files = self.hub.files(repo, revision)
        if files is None or path not in files:
            return self.missing("EntryNotFound")
        data, headers = files[path], [
            ("ETag", f'"{hashlib.sha1(files[path]).hexdigest()}"'),
            ("X-Repo-Commit", self.hub.sha(repo, branch)),
            ("Accept-Ranges", "bytes"),
        ]  # fmt: skip
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers.append(("Content-Range", f"bytes {start}-{stop}/{len(data)}"))
            return self.answer(data[start : stop + 1], status=206, headers=headers)
        if self.command == "HEAD":
            headers.append(("Content-Length", str(len(data))))
        return self.answer(data, headers=headers)

    def base(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving():
    """Serve an empty hub on a free port of this machine; yield it and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.daemon_threads = Hub(), True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
