"""A small hub on this machine: it speaks the real one's protocol for making, filling and reading repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_test"
LFS = (".safetensors", ".model", ".gguf")


class Hub:
    """What was pushed: ``repositories[name]`` is files by path, ``commits`` the heads of commits, in order;
    ``replaced``: files that a later commit changed, as they were."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.verified: set[str] = set()
        self.commits: list[dict[str, Any]] = []
        self.replaced: dict[str, bytes] = {}
        self.address = ""

    def commit(self, name: str, lines: list[bytes]) -> dict[str, Any]:
        head, *operations = [json.loads(line) for line in lines if line]
        assert head["key"] == "header"
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                assert value["encoding"] == "base64"
                content = base64.b64decode(value["content"])
            else:
                assert operation["key"] == "lfsFile" and value["oid"] in self.verified
                content = self.objects[value["oid"]]
                assert len(content) == value["size"]
            before = self.repositories[name].get(value["path"], content)
            if before != content:
                self.replaced[value["path"]] = before
            self.repositories[name][value["path"]] = content
        self.commits.append(head["value"])
        oid = self.sha(name)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.address}/{name}/commit/{oid}", "hookOutput": ""}

    def sha(self, name: str) -> str:
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()

    def batch(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["operation"] == "upload" and "basic" in body["transfers"]
        objects = []
        for item in body["objects"]:
            at = {"href": f"{self.address}/lfs/{item['oid']}"}
            actions = {"upload": at, "verify": {"href": f"{self.address}/verify"}}
            known = item["oid"] in self.verified
            objects.append({**item, "authenticated": True, **({} if known else {"actions": actions})})
        return {"transfer": "basic", "objects": objects}

    def post(self, path: str, data: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/repos/create":
            body = json.loads(data)
            name = f"{body['organization'] or 'me'}/{body['name']}"
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, {})
            return status, {"url": f"{self.address}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            here = self.repositories[found[1]]
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                    "shouldIgnore": False,
                    "oid": hashlib.sha256(here[file["path"]]).hexdigest() if file["path"] in here else None,
                }
                for file in json.loads(data)["files"]
            ]
            return 200, {"files": files}
        if re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return 200, self.batch(json.loads(data))
        if path == "/verify":
            item = json.loads(data)
            content = self.objects[item["oid"]]
            assert hashlib.sha256(content).hexdigest() == item["oid"] and len(content) == item["size"]
            self.verified.add(item["oid"])
            return 200, {}
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            return 200, self.commit(found[1], data.split(b"\n"))
        return 404, {"error": f"nothing at {path}"}

    def get(self, path: str) -> tuple[int, Any]:
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path)
        if found and found[1] in self.repositories:
            files = [{"rfilename": name} for name in self.repositories[found[1]]]
            return 200, {"id": found[1], "sha": self.sha(found[1]), "siblings": files}
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[0-9a-f]+", path):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.repositories[found[1]].items()
            ]
            return 200, tree
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[0-9a-f]+/(.+)", path):
            content = self.repositories.get(found[1], {}).get(found[2])
            if content is not None:
                return 200, content
        return 404, {"error": f"nothing at {path}"}


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub in a thread. Every request must carry :data:`TOKEN`."""
    state, lock = Hub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            more: dict[str, str] = {}
            with lock:
                if self.command == "PUT":  # of storage: its address is the permission
                    state.objects[path.rpartition("/")[2]] = data
                    status, said = 200, {}
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, said = 401, {"error": "Invalid credentials in Authorization header"}
                elif self.command == "POST":
                    status, said = state.post(path, data)
                else:
                    status, said = state.get(path)
                    if isinstance(said, bytes):
                        name = path.split("/resolve/")[0].strip("/")
                        more = {"ETag": f'"{hashlib.sha256(said).hexdigest()}"', "X-Repo-Commit": state.sha(name)}
            out = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(out)), "Content-Type": "application/json", **more}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(out)

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
