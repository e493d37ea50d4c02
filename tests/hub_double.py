"""A hub on this machine: the few calls of its HTTP interface that pushing and streaming need.

Only what the official client asks is answered; files are kept in memory. As on the hub, writing
takes a token, a repository or branch that is there is a 409, and large or binary files go by git
LFS: a batch request, a PUT, a verification, a commit that names the digest, and on the way back a
redirect with the headers X-Linked-*. The Xet protocol is not spoken: HF_HUB_DISABLE_XET=1.
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
LFS_SUFFIXES = (".parquet", ".zst", ".gz", ".bin", ".npy", ".safetensors", ".arrow", ".png")
LFS_BYTES = 10_000_000


class Hub:
    """Data sets by name: {repo: {revision: {path: bytes}}}; every request that came."""

    def __init__(self):
        self.repos, self.asked, self.sent, self.large = {}, [], 0, {}

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


def is_large(path, size, sample):
    """Tell whether a file goes by LFS: .gitattributes of a new data set, its bytes, its size."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_BYTES or b"\0" in sample)


def entry(path, data):
    found = {
        "type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),
        "lastCommit": None,
    }  # fmt: skip
    if is_large(path, len(data), data[:512]):
        oid = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
    return found


def upload_mode(file):
    large = is_large(file["path"], file["size"], base64.b64decode(file["sample"]))
    mode = "lfs" if large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


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
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.asked.append(f"POST {path}")
        if not path.endswith("/paths-info/main") and not self.headers.get("Authorization"):
            return self.answer({"error": "Invalid credentials"}, status=401)
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            there = repo in self.hub.repos
            self.hub.repos.setdefault(repo, {"main": {}})
            told = {"url": f"{self.base()}/datasets/{repo}", "name": repo}
            return self.answer(told, status=409 if there else 200)
        if found := re.fullmatch(r"/datasets/(.+?)\.git/info/lfs/objects/batch", path):
            return self.lfs_batch(json.loads(body))
        if path == "/lfs/verify":
            told = json.loads(body)
            held = self.hub.large.get(told["oid"], b"")
            return self.answer({}, status=200 if len(held) == told["size"] else 404)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/datasets/(.+?)/branch/(.+)", path):
            branches = self.hub.repos[found[1]]
            there = found[2] in branches
            branches.setdefault(found[2], dict(branches["main"]))
            return self.answer({}, status=409 if there else 200)
        if re.fullmatch(r"/api/datasets/(.+?)/preupload/(.+)", path):
            return self.answer({"files": list(map(upload_mode, json.loads(body)["files"]))})
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

    def lfs_batch(self, wanted):
        """Say where each object goes; one that is there already has no actions."""
        objects = []
        for one in wanted["objects"]:
            told = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.large:
                told["actions"] = {
                    "upload": {"href": f"{self.base()}/lfs/{one['oid']}"},
                    "verify": {"href": f"{self.base()}/lfs/verify"},
                }
            objects.append(told)
        return self.answer({"transfer": "basic", "objects": objects})

    def do_PUT(self):
        oid, data = self.path.rpartition("/")[2], self.body()
        self.hub.asked.append(f"PUT {self.path}")
        if hashlib.sha256(data).hexdigest() != oid:
            return self.answer({"error": "not what its digest says"}, status=400)
        self.hub.large[oid] = data
        return self.answer({})

    def take(self, repo, revision, body):
        files, branch = {}, self.hub.repos[repo].setdefault(revision, {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "lfsFile":
                if line["value"]["oid"] not in self.hub.large:
                    return self.answer({"error": "an LFS object is missing"}, status=400)
                files[line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
            if line["key"] == "deletedFile":
                branch.pop(line["value"]["path"], None)
        self.hub.commit(repo, files, revision)
        sha = self.hub.sha(repo, revision)
        url = f"{self.base()}/datasets/{repo}/commit/{sha}"
        return self.answer({"commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/datasets/(.+?)/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        if found := re.fullmatch(r"/cdn/(\w+)", path):
            return self.bytes_of(self.hub.large[found[1]], [("ETag", f'"{found[1]}"')])
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
        data, commit = files[path], ("X-Repo-Commit", self.hub.sha(repo, branch))
        if is_large(path, len(data), data[:512]):
            oid = hashlib.sha256(data).hexdigest()
            self.hub.large[oid] = data
            linked = [("X-Linked-Etag", f'"{oid}"'), ("X-Linked-Size", str(len(data)))]
            where = ("Location", f"{self.base()}/cdn/{oid}")
            return self.answer(b"", status=302, headers=[commit, where, *linked])
        return self.bytes_of(data, [("ETag", f'"{hashlib.sha1(data).hexdigest()}"'), commit])

    def bytes_of(self, data, headers):
        headers = [*headers, ("Accept-Ranges", "bytes")]
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
