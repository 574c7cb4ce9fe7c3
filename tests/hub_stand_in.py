"""A server on this machine that answers as the Hugging Face Hub does where huggingface_hub publishes and fetches."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

TOKEN = "a-good-token"


class Hub(http.server.BaseHTTPRequestHandler):
    """State is of the class: ``hub()`` makes one for each test.

    ``repos`` maps a name to its commits, oldest first: (hash, content by path); ``blobs`` are large files by SHA-256;
    ``asked`` lists (method, path, authorization); ``refuse`` maps a part of a path to the status that it is answered
    with; ``listed`` are paths that listings show besides; ``storage`` is the address of the large files.
    """

    repos: dict[str, list[tuple[str, dict[str, bytes]]]]
    blobs: dict[str, bytes]
    asked: list[tuple[str, str, str | None]]
    refuse: dict[str, int]
    listed: list[str]
    url: str
    storage: str
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("GET")

    do_HEAD = do_GET

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def answer(self, method):
        path = unquote(urlsplit(self.path).path).strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, path, self.headers.get("Authorization")))
        for part, status in self.refuse.items():
            if part in path:
                return self.send(status, {"error": "because of the test"})
        if method == "PUT":
            self.blobs[path.split("/")[-1]] = body
            return self.send(200, {})
        if path == "api/validate-yaml":
            return self.send(200, {"errors": [], "warnings": []})
        if method == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(401, {"error": "Invalid username or password."})
        if path.startswith("lfs/"):
            return self.send(200, self.blobs[path.split("/")[-1]], ETag=f'"{path.split("/")[-1]}"')
        if path == "api/repos/create":
            return self.create(json.loads(body))
        parts = path.split("/")
        parts = parts[2:] if parts[:2] == ["api", "models"] else parts
        repo, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        if repo not in self.repos:
            return self.send(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
        return self.answer_for(repo, rest, body)

    def answer_for(self, repo, rest, body):
        if rest[:1] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = [("lfs" if f["path"].endswith(".safetensors") else "regular", f["path"]) for f in files]
            told = [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for mode, path in modes]
            return self.send(200, {"files": told})
        if rest[:1] == ["commit"]:
            return self.commit(repo, body)
        if rest[:2] == ["info", "lfs"]:
            objects = json.loads(body)["objects"]
            uploads = [o | {"actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in objects]
            return self.send(200, {"transfer": "basic", "objects": uploads})
        wanted = rest[1] if len(rest) > 1 else "main"
        commits = self.repos[repo]
        found = commits[-1:] if wanted == "main" else [c for c in commits if c[0] == wanted]
        if not found:
            return self.send(404, {"error": "Invalid rev id"}, **{"X-Error-Code": "RevisionNotFound"})
        ((commit, files),) = found
        if rest[:1] == ["tree"]:
            return self.send(200, [self.file(path, content) for path, content in files.items()])
        if rest[:1] == ["resolve"]:
            return self.resolve(commit, files, "/".join(rest[2:]))
        siblings = [{"rfilename": path} for path in (*files, *self.listed)]
        return self.send(200, {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "private": False})

    def create(self, asked):
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.repos:
            return self.send(409, {"error": "You already created this model repo", "url": f"{self.url}/{repo}"})
        # the Hub's own first commit
        self.repos[repo] = [("0" * 40, {".gitattributes": b"*.safetensors filter=lfs\n"})]
        return self.send(200, {"url": f"{self.url}/{repo}", "name": repo})

    def commit(self, repo, body):
        files = dict(self.repos[repo][-1][1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = hashlib.sha1(repr((len(self.repos[repo]), files)).encode()).hexdigest()
        self.repos[repo].append((commit, files))
        return self.send(200, {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{repo}/commit/{commit}"})

    def file(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def resolve(self, commit, files, path):
        if path not in files:
            return self.send(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound"})
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not path.endswith(".safetensors"):
            return self.send(200, content, **headers)
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
        return self.send(302, b"", Location=f"{self.storage}/lfs/{digest}", **headers, **linked)

    def send(self, status, content, **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def hub() -> Iterator[type[Hub]]:
    """A running server; its state and ``url`` are the class's."""
    handler = type("Handler", (Hub,), {"repos": {}, "blobs": {}, "asked": [], "refuse": {}, "listed": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{listening.server_port}"
        # the client takes large files from another host than the Hub's
        handler.storage = f"http://localhost:{listening.server_port}"
        yield handler
        listening.shutdown()
