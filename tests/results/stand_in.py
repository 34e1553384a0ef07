"""A stand-in for the W&B server on loopback: what this project asks of one, kept in memory.

GraphQL operations are known by name; one that isn't known is answered with an error and noted, so that a test
fails on what W&B's client has begun to ask.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

ENTITY = "me"


@dataclass
class Project:
    """Everything that clients have sent, by run id."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)  # run, artifact
    unknown: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL operation."""
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        operation = found[1] if found else query
        method = getattr(self, f"_{operation}", None)
        if method is None:
            self.unknown.append(operation)
            return {}
        answered: dict[str, Any] = method(values)
        return answered

    def _Viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "me@example.org", "flags": "{}"}
        return {"viewer": user | {"teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False}}

    _GetViewer = _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _ServerInfo(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "features": []}}

    def _RunResumeStatus(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"model": {"id": "p", "name": values["project"], "entity": self._entity(), "bucket": None}}

    def _UpsertBucket(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(values["name"], {})
        run.update({key: value for key, value in values.items() if value is not None})
        project = {"id": "p", "name": values["project"], "entity": self._entity()}
        name = values["name"]
        bucket = {"id": name, "name": name, "displayName": run.get("displayName"), "description": "",
                  "config": run.get("config", "{}"), "sweepName": None, "historyLineCount": 0,
                  "project": project}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _CreateRunFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        run = values["run"]
        files = [{"name": f, "uploadUrl": f"{self.url}/upload/{run}/{f}"} for f in values["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def _XXHashDigestsEnabled(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _FetchArtifactDigestAlgorithm(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifactType": None}}

    def _CreateArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        asked = values["input"]
        name = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
        self.artifacts[name] = asked | {"files": []}
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["artifactID"]
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifests/{name}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _UpdateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["artifactManifestID"]
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifests/{name}", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def _CreateArtifactFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        nodes: list[dict[str, Any]] = []
        for asked in values["input"]["artifactFiles"]:
            self.artifacts[asked["artifactID"]]["files"].append(asked["name"])
            path = f"artifacts/{asked['artifactID']}/{asked['name']}"
            nodes.append({
                "storagePath": path, "uploadUrl": f"{self.url}/upload/{path}", "uploadHeaders": [],
                "uploadMultipartUrls": None, "artifact": {"id": asked["artifactID"]},
            })  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": values["artifactID"], "digest": "d"}}}

    def _ArtifactByID(self, values: dict[str, Any]) -> dict[str, Any]:
        name, asked = values["id"], self.artifacts[values["id"]]
        project = {"id": "cDpw", "internalId": "cDpw", "name": "p", "entity": self._entity()}
        sequence = {"__typename": "ArtifactSequence", "id": "Yzox", "name": name, "project": project}
        identity = base64.b64encode(name.encode()).decode()
        return {"artifact": {
            "__typename": "Artifact", "id": identity, "versionIndex": 0, "description": None,
            "artifactSequence": sequence, "artifactType": {"name": asked["artifactTypeName"]},
            "metadata": asked.get("metadata"), "ttlDurationSeconds": 0, "ttlIsInherited": True, "tags": [],
            "historyStep": None, "state": "COMMITTED", "size": 1, "digest": "d", "digestAlgorithm": None,
            "commitHash": None, "fileCount": 1, "createdAt": "2026-01-01T00:00:00", "updatedAt": None,
            "aliases": [],
        }}  # fmt: skip

    def _ArtifactType(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _UseArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        asked = values.get("input") or values
        self.used.append((asked["runName"], base64.b64decode(asked["artifactID"]).decode()))
        return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}

    def _Runs(self, values: dict[str, Any]) -> dict[str, Any]:
        edges = [{"node": self._run(name), "cursor": name} for name in self.runs]
        page = {"endCursor": None, "hasNextPage": False}
        runs = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "runCount": len(edges), "readOnly": False, "runs": runs}}

    def _Run(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"internalId": "1", "run": self._run(values["name"])}}

    def _RunFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        run = values.get("name") or values.get("run")
        wanted = values.get("fileNames") or values.get("names") or []
        kept = self.files.get(str(run), {})
        edges = []
        for name, data in kept.items():
            if wanted and name not in wanted:
                continue
            url = f"{self.url}/upload/{run}/{name}"
            node = {"id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": len(data),
                    "mimetype": "text/plain", "updatedAt": "2026-01-01T00:00:00",
                    "md5": base64.b64encode(hashlib.md5(data).digest()).decode()}  # fmt: skip
            edges.append({"node": node, "cursor": name})
        page = {"endCursor": None, "hasNextPage": False}
        run_files = {"fileCount": len(edges), "files": {"edges": edges, "pageInfo": page}}
        return {"project": {"internalId": "1", "run": run_files}}

    def _entity(self) -> dict[str, str]:
        return {"id": "e", "name": ENTITY}

    def _run(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        user = {"name": ENTITY, "username": ENTITY}
        return {
            "id": name, "name": name, "displayName": run.get("displayName"), "tags": [], "state": "finished",
            "group": run.get("groupName"), "jobType": run.get("jobType"), "commit": None, "readOnly": False,
            "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "description": "",
            "notes": None, "sweepName": None, "historyLineCount": 0, "user": user, "projectId": "1",
            "historyKeys": None, "config": run.get("config", "{}"), "systemMetrics": "{}",
            "summaryMetrics": json.dumps(self.summary.get(name, {})), "fileCount": 1,
        }  # fmt: skip

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """What a run's file stream brings."""
        parts = sent.get("files") or {}
        history = parts.get("wandb-history.jsonl", {}).get("content", [])
        self.history.setdefault(run, []).extend(json.loads(line) for line in history)
        for line in parts.get("wandb-summary.json", {}).get("content", []):
            self.summary.setdefault(run, {}).update(json.loads(line))
        if sent.get("complete"):
            self.exit_codes[run] = sent.get("exitcode", 0)


@contextmanager
def stand_in() -> Iterator[tuple[Project, ThreadingHTTPServer]]:
    """A server that runs for the length of a test (or until its `shutdown`)."""
    project = Project()

    class Handler(BaseHTTPRequestHandler):
        def _send(self, data: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                data = b"".join(parts)
            else:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

        def do_GET(self) -> None:
            run, _, name = self.path.removeprefix("/upload/").partition("/")
            self._send(project.files.get(run, {}).get(name, b"{}"))

        def do_PUT(self) -> None:
            run, _, name = self.path.removeprefix("/upload/").partition("/")
            project.files.setdefault(run, {})[name] = self._body()
            self._send(b"{}")

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/graphql":
                asked = json.loads(body)
                data = project.answer(asked["query"], asked.get("variables") or {})
                errors = {} if data else {"errors": [{"message": "not known to the stand-in"}]}
                self._send(json.dumps({"data": data or None} | errors).encode())
                return
            if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                project.stream(match[1], json.loads(body))
            self._send(b"{}")  # W&B's own telemetry among others

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    project.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield project, server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
