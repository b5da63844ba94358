"""How the Hub of the tests answers each request that huggingface_hub sends to upload and download.

Xet, git and multipart uploads are not spoken.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from support.hub_repositories import LARGE, Repo, entry

if TYPE_CHECKING:
    from support.hub_server import HubServer

TOKEN = "hf_" + "ThisIsNotToBeFoundAnywhere"
ID = r"(?P<id>[\w.-]+/[\w.-]+)"
KIND = r"(?P<kind>models|datasets)"
OF_KIND = r"(?P<prefix>datasets/)?"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        hub: HubServer = self.server.hub
        path = urlsplit(self.path).path
        request = f"{self.command} {path}"
        hub.requests.append(request)
        try:
            if fault := next((f for f in hub.faults if f.times > 0 and re.search(f.match, request)), None):
                fault.times -= 1
                if fault.act:
                    fault.act(self)
                    if self.close_connection:
                        return
                if fault.status:
                    self.body()
                    raise Problem(fault.status, "a fault on demand", fault.headers)
            for pattern, answer in ROUTES:
                if found := re.fullmatch(pattern, request):
                    answer(self, **{name: unquote(text or "") for name, text in found.groupdict().items()})
                    return
            raise Problem(404, f"no route {request}")
        except Problem as problem:
            self.send({"error": problem.message}, problem.status, problem.headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def body(self) -> bytes:
        """The request's body, with whatever encoding it comes in."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def json(self) -> Any:
        return json.loads(self.body())

    def send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def need_login(self) -> None:
        if not self.logged_in():
            raise Problem(401, "Invalid username or password.")

    def repo(self, kind: str, id: str) -> Repo:
        found: Repo | None = self.server.hub.repos.get((kind, id))
        if found is None or (found.private and not self.logged_in()):
            raise Problem(404 if self.logged_in() else 401, "Repository not found", {"X-Error-Code": "RepoNotFound"})
        return found

    def whoami(self) -> None:
        self.need_login()
        self.send(self.server.hub.user)

    def create(self) -> None:
        asked = self.json()
        self.need_login()
        hub = self.server.hub
        id, kind = f"{asked['organization'] or hub.user['name']}/{asked['name']}", f"{asked.get('type') or 'model'}s"
        if new := (kind, id) not in hub.repos:
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.repos[kind, id] = Repo(private=bool(private))
            hub.repos[kind, id].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        prefix = "datasets/" if kind == "datasets" else ""
        self.send({"url": f"{hub.endpoint}/{prefix}{id}", "name": id}, 200 if new else 409)

    def info(self, kind: str, id: str, revision: str = "main") -> None:
        repo = self.repo(kind, id)
        oid = self.commit_of(repo, revision)
        known = self.server.hub.cards.get(id)
        files = [{"rfilename": path} for path in repo.commits[oid]]
        card = {"cardData": known} if known else {}
        self.send({"id": id, "sha": oid, "private": repo.private, "tags": [], "siblings": files, **card})

    def commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.branches.get(revision, revision)
        if oid not in repo.commits:
            raise Problem(404, f"no revision {revision}", {"X-Error-Code": "RevisionNotFound"})
        return oid

    def tree(self, kind: str, id: str, revision: str, folder: str) -> None:
        repo = self.repo(kind, id)
        files = {
            path: content
            for path, content in repo.commits[self.commit_of(repo, revision)].items()
            if path.startswith(folder and f"{folder}/")
        }
        if folder and not files:
            raise Problem(404, f"no folder {folder}", {"X-Error-Code": "EntryNotFound"})
        self.send([entry(path, content) for path, content in files.items()])

    def branch(self, kind: str, id: str, branch: str) -> None:
        self.body()
        self.need_login()
        repo = self.repo(kind, id)
        if branch in repo.branches:
            raise Problem(409, "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self.send({})

    def validate(self) -> None:
        metadata = self.json()["content"].startswith("---\n")
        self.send({"errors": [], "warnings": [] if metadata else [{"message": "empty or missing yaml metadata"}]})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        asked = self.json()
        self.need_login()
        repo = self.repo(kind, id)
        known = repo.commits[self.commit_of(repo, revision)]
        self.send(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": entry(file["path"], known[file["path"]])["oid"] if file["path"] in known else None,
                    }
                    for file in asked["files"]
                ]
            }
        )

    def batch(self, prefix: str, id: str) -> None:
        asked = self.json()
        self.need_login()
        hub = self.server.hub
        missing = {item["oid"] for item in asked["objects"]} - hub.objects.keys()
        objects = [
            {**item, **({"actions": self.put_action(item["oid"])} if item["oid"] in missing else {})}
            for item in asked["objects"]
        ]
        self.send({"transfer": "basic", "objects": objects})

    def put_action(self, oid: str) -> dict[str, Any]:
        return {"upload": {"href": f"{self.server.hub.endpoint}/_objects/{oid}?X-Amz-Signature=secret", "header": {}}}

    def put(self, oid: str) -> None:
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise Problem(400, "this is not what was announced")
        self.server.hub.objects[oid] = content
        self.send({})

    def commit(self, kind: str, id: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body().splitlines() if line.strip()]
        self.need_login()
        repo = self.repo(kind, id)
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, repo.branches.get(revision)):
            raise Problem(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[self.commit_of(repo, revision)])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        oid = repo.commit(revision, files, head["summary"])
        self.send({"commitUrl": f"{self.server.hub.endpoint}/{id}/commit/{oid}", "commitOid": oid})

    def resolve(self, prefix: str, id: str, revision: str, path: str) -> None:
        repo = self.repo("datasets" if prefix else "models", id)
        oid = self.commit_of(repo, revision)
        if path not in repo.commits[oid]:
            raise Problem(404, "Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
        content = repo.commits[oid][path]
        found = entry(path, content)
        self.send(content, headers={"ETag": f'"{found.get("lfs", found)["oid"]}"', "X-Repo-Commit": oid})


class Problem(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.message, self.headers = status, message, headers or {}


ROUTES: list[tuple[str, Callable[..., None]]] = [
    ("GET /api/whoami-v2", Handler.whoami),
    ("POST /api/repos/create", Handler.create),
    ("POST /api/validate-yaml", Handler.validate),
    (f"GET /api/{KIND}/{ID}", Handler.info),
    (f"GET /api/{KIND}/{ID}/revision/(?P<revision>.+)", Handler.info),
    (f"GET /api/{KIND}/{ID}/tree/(?P<revision>[^/]+)/?(?P<folder>.*)", Handler.tree),
    (f"POST /api/{KIND}/{ID}/branch/(?P<branch>.+)", Handler.branch),
    (f"POST /api/{KIND}/{ID}/preupload/(?P<revision>.+)", Handler.preupload),
    (f"POST /api/{KIND}/{ID}/commit/(?P<revision>.+)", Handler.commit),
    (rf"POST /{OF_KIND}{ID}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT /_objects/(?P<oid>[0-9a-f]+)", Handler.put),
    (f"(?:GET|HEAD) /{OF_KIND}{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
