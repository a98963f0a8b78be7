"""Servers on loopback that answer as Kubeflow Pipelines, Vertex AI, Cloud Logging and Google's login do."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

STAGES = ("ingest", "preprocess", "train", "evaluate", "export")
START = "2026-11-25T10:00:00Z"


class Server:
    """One server.

    Attributes:
        url: where it listens.
        asked: what it was asked, in order: method, path, query, body.
        faults: answers in place of its own, by a pattern of `METHOD path`: status, body, headers; each is given once.
        frames: what a run's stages are at each look, the last one for ever; the run ends when none is running or waiting.
        logs: lines by stage.
    """

    def __init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_json = body and "json" in (self.headers.get("Content-Type") or "")
                asked = (
                    self.command,
                    unquote(parts.path),
                    parse_qs(parts.query),
                    json.loads(body) if is_json else body,
                )
                with server._lock:
                    server.asked.append(asked)
                    server.headers.append(dict(self.headers))
                    status, answer, headers = server._answer(*asked)
                text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(text)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_one

            def log_message(self, *_: Any) -> None:
                pass

        self.asked: list[tuple[str, str, dict, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[tuple[str, int, Any, dict[str, str]]] = []
        self.frames: list[dict[str, str]] = [dict.fromkeys(STAGES, "made")]
        self.logs: dict[str, list[str]] = {}
        self.error = ""
        self.cancelled = False
        self._lock = threading.Lock()
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_port}"
        threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def fails(self, pattern: str, status: int, body: Any = "", times: int = 1, **headers: str) -> None:
        """From now on these requests fail, so often."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults += [(pattern, status, body, named)] * times

    def bodies(self, pattern: str) -> list[Any]:
        """What was sent to a path."""
        return [body for method, path, _, body in self.asked if re.search(pattern, f"{method} {path}")]

    def counts(self) -> Counter:
        """How often each path was asked for."""
        return Counter(f"{method} {path}" for method, path, _, _ in self.asked)

    def _answer(self, method: str, path: str, query: dict, body: Any) -> tuple[int, Any, dict[str, str]]:
        for index, (pattern, status, told, headers) in enumerate(self.faults):
            if re.search(pattern, f"{method} {path}"):
                del self.faults[index]
                return status, told, headers
        answer = self.answer(method, path, query, body)
        return (404, self.missing(path), {}) if answer is None else (200, answer, {})

    def answer(self, method: str, path: str, query: dict, body: Any) -> Any:
        raise NotImplementedError

    def missing(self, path: str) -> Any:
        raise NotImplementedError

    def look(self) -> dict[str, str]:
        """The stages now, and one frame further the next time."""
        if self.cancelled:
            return {name: "cancelled" if state == "running" else state for name, state in self.frames[0].items()}
        return self.frames.pop(0) if len(self.frames) > 1 else self.frames[0]


class KubeflowServer(Server):
    """The API server of Kubeflow Pipelines, as it is reached through its pages' server.

    Attributes:
        shows_workflow: whether `v1beta1` is served.
    """

    shows_workflow = True
    schedules: list[dict]
    _now: dict[str, str] = {}
    _states = {
        "made": "SUCCEEDED", "cached": "SUCCEEDED", "failed": "FAILED", "running": "RUNNING", "cancelled": "CANCELED",
        "waiting": "PENDING", "starting": "RUNNING", "undriven": "FAILED",
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.schedules = []
        self.messages: dict[str, str] = {}

    def missing(self, path: str) -> Any:
        return {"error": f"{path}: Not Found", "code": 5, "message": "Not Found", "details": []}

    def answer(self, method: str, path: str, query: dict, body: Any) -> Any:
        match method, path.rstrip("/").split("/")[1:]:
            case "GET", ["apis", "v2beta1", "healthz"]:
                return {"multi_user": False}
            case "GET", ["apis", "v2beta1", "experiments"]:
                return {}
            case "POST", ["apis", "v2beta1", "experiments"]:
                return {**body, "experiment_id": "experiment-1"}
            case "POST", ["apis", "v2beta1", "runs"]:
                return {**body, "run_id": "run-1", "state": "PENDING", "created_at": START}
            case "GET", ["apis", "v2beta1", "runs", "run-1"]:
                return self._run()
            case "POST", ["apis", "v2beta1", "runs", "run-1:terminate"]:
                self.cancelled = True
                return {}
            case "GET", ["apis", "v1beta1", "runs", "run-1"] if self.shows_workflow:
                manifest = json.dumps(self._workflow())
                return {"run": {"id": "run-1"}, "pipeline_runtime": {"workflow_manifest": manifest}}
            case "GET", ["apis", "v1alpha1", "runs", "run-1", "nodes", pod, "log"]:
                return self._log(pod)
            case "GET", ["apis", "v2beta1", "recurringruns"]:
                return {"recurringRuns": self.schedules, "total_size": len(self.schedules)}
            case "POST", ["apis", "v2beta1", "recurringruns"]:
                self.schedules.append({**body, "recurring_run_id": "schedule-1"})
                return self.schedules[-1]
        return None

    def _run(self) -> dict:
        self._now = self.look()
        tasks = [{"run_id": "run-1", "task_id": "0", "display_name": "root", "state": "RUNNING", "start_time": START}]
        for name, state in self._now.items():
            over = state not in ("running", "waiting", "starting")
            task = {"run_id": "run-1", "task_id": name, "display_name": name, "state": self._states[state]}
            task |= {"start_time": START, "create_time": START}
            task["end_time"] = "2026-11-25T10:01:40Z" if over else "1970-01-01T00:00:00Z"
            driver = {**task, "display_name": f"{name}-driver", "state": "SUCCEEDED"}
            if state == "undriven":  # Argo leaves the stage out, and the API has no word for that
                driver["state"], task["state"] = "FAILED", "RUNTIME_STATE_UNSPECIFIED"
            tasks += [driver, task]
        return {
            "run_id": "run-1",
            "display_name": "tiny",
            "state": self._state(),
            "error": {"code": 13, "message": self.error} if self.error else None,
            "run_details": {"task_details": tasks},
        }

    def _state(self) -> str:
        states = set(self._now.values())
        if states & {"running", "waiting", "starting"}:
            return "RUNNING"
        return "CANCELED" if self.cancelled else "FAILED" if states & {"failed", "undriven"} else "SUCCEEDED"

    def _workflow(self) -> dict:
        nodes = {}
        for index, (name, state) in enumerate(self._now.items()):
            outer, inner = f"tiny-abc-{index}0", f"tiny-abc-{index}1"
            common = {"phase": "Succeeded", "startedAt": START}
            nodes[outer] = {
                "id": outer,
                "displayName": name,
                "type": "DAG",
                "templateName": "system-container-executor",
            }
            nodes[outer] |= common | {"children": [inner]}
            kind = "Skipped" if state == "cached" else "Pod"
            nodes[inner] = {"id": inner, "displayName": "executor", "type": kind, "boundaryID": outer, **common}
            nodes[inner] |= {"templateName": "system-container-impl", "message": self.messages.get(name, "")}
            nodes[inner]["phase"] = {"starting": "Pending", "running": "Running"}.get(state, "Succeeded")
            driver = f"tiny-abc-{index}2"
            nodes[driver] = {"id": driver, "displayName": f"{name}-driver", "type": "Pod", **common}
            nodes[driver] |= {"templateName": "system-container-driver", "startedAt": "2026-11-25T09:59:00Z"}
            if state == "undriven":
                del nodes[outer], nodes[inner]
        return {"metadata": {"name": "tiny-abc", "namespace": "kubeflow"}, "status": {"nodes": nodes}}

    def _log(self, pod: str) -> str | None:
        found = re.fullmatch(r"tiny-abc-system-container-(?:impl-(\d)1|driver-(\d)2)", pod)
        if not found:  # as Go does it: the status is written before the error
            return '{"error_message":"Failed to read logs from pod"}'
        return "\n".join(self.logs.get(list(self._now)[int(found[1] or found[2])], []))


class GoogleServer(Server):
    """Vertex AI, Cloud Logging and the login of service accounts. What it is told to make it has, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, dict] = {}
        self.written: list[dict] = []
        self.summaries: dict[str, str] = {}
        self.messages: dict[str, str] = {}

    def missing(self, path: str) -> Any:
        return {"error": {"code": 404, "message": f"{path} not found", "status": "NOT_FOUND"}}

    def answer(self, method: str, path: str, query: dict, body: Any) -> Any:
        if path == "/token":
            return {"access_token": "token-1", "expires_in": 3600, "token_type": "Bearer"}
        if path == "/v2/entries:list":
            stage = re.search(r'job_id="(\w+)"', body["filter"])[1]
            return {"entries": [{"jsonPayload": {"message": line}} for line in reversed(self.logs.get(stage, []))]}
        name, _, verb = path.removeprefix("/v1/").partition(":")
        if verb:
            return self._do(name, verb, body)
        if method == "GET":
            return self._get(name, query)
        if method == "PATCH" and name in self.made:
            self.made[name] |= body
            return self.made[name]
        identifier = next((values[0] for key, values in query.items() if key.endswith("Id")), None)
        made = f"{name}/{identifier or len(self.made) + 1}"
        self.made[made] = {**body, "name": made}
        if name.endswith("/metadataStores"):
            kind = "type.googleapis.com/google.cloud.aiplatform.v1.MetadataStore"
            return {"name": f"{made}/operations/1", "done": True, "response": {"@type": kind, "name": made}}
        return self.made[made]

    def _get(self, name: str, query: dict) -> Any:
        if "/pipelineJobs/" in name:
            return self._job(name)
        if name in self.made:
            return self.made[name]
        if len(name.split("/")) % 2:  # a collection
            wanted = dict(re.findall(r'([\w.]+)="([^"]*)"', " ".join(query.get("filter", []))))
            below = [one for key, one in self.made.items() if key.rpartition("/")[0] == name]
            return {name.rpartition("/")[2]: [one for one in below if self._fits(one, wanted)]}
        return None

    def _fits(self, one: dict, wanted: dict[str, str]) -> bool:
        found = {"display_name": one.get("displayName"), "labels": one.get("labels", {})}
        return all(
            (found["labels"].get(key.partition(".")[2]) if key.startswith("labels.") else found.get(key)) == value
            for key, value in wanted.items()
        )

    def _do(self, name: str, verb: str, body: Any) -> Any:
        match verb:
            case "cancel":
                self.cancelled = True
                return {}
            case "addContextChildren":
                self.made[name].setdefault("childContexts", []).extend(body["childContexts"])
                return {}
            case "addContextArtifactsAndExecutions":
                return {}
            case "upload":
                model = body.get("parentModel") or f"{name}/{len(self.made) + 1}"
                versions = [one for key, one in self.made.items() if key.startswith(f"{model}@")]
                number = str(len(versions) + 1)
                self.made[f"{model}@{number}"] = {**body["model"], "name": model, "versionId": number}
                self.made[model] = self.made[f"{model}@{number}"]
                answer = {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"}
                answer |= {"model": model, "modelVersionId": number}
                return {"name": f"{name.rpartition('/')[0]}/operations/1", "done": True, "response": answer}
            case "listVersions":
                return {"models": [one for key, one in self.made.items() if key.startswith(f"{name}@")]}
            case "batchCreate":
                kind = name.rpartition("/")[2]
                return {kind: [self._create(one) for one in body["requests"]]}
            case "write" | "writeTensorboardExperimentData" | "writeRunData":
                self.written.append({"name": name, **body})
                return {}
        return None

    def _create(self, request: dict) -> dict:
        (single,) = (value for value in request.values() if isinstance(value, dict))
        identifier = next(value for key, value in request.items() if key.endswith("Id"))
        name = f"{request['parent']}/{identifier}"
        self.made[name] = {**single, "name": name}
        return self.made[name]

    def _job(self, name: str) -> Any:
        if name not in self.made:
            return None
        now = self.look()
        words = {"made": "SUCCEEDED", "cached": "SKIPPED", "skipped": "NOT_TRIGGERED", "waiting": "PENDING"}
        tasks = []
        for stage, state in now.items():
            task: dict[str, Any] = {"taskName": stage, "state": words.get(state, state.upper()), "startTime": START}
            if state not in ("running", "waiting"):
                task["endTime"] = "2026-11-25T10:01:40Z"
            if state == "failed":
                task["error"] = {"code": 9, "message": self.messages.get(stage, "")}
            if state == "waiting" and stage in self.messages:
                task["pipelineTaskStatus"] = [{"state": "PENDING", "error": {"message": self.messages[stage]}}]
            if summary := self.summaries.get(stage):
                task["outputs"] = {"model": {"artifacts": [{"metadata": {"summary": summary}}]}}
            task["executorDetail"] = {"containerDetail": {"mainJob": f"projects/1/locations/l/customJobs/{stage}"}}
            tasks.append(task)
        states = set(now.values())
        state = "RUNNING" if states & {"running", "waiting"} else "FAILED" if "failed" in states else "SUCCEEDED"
        detail = {
            "taskDetails": tasks,
            "pipelineRunContext": {"name": f"{name.split('/pipelineJobs')[0]}/contexts/run"},
        }
        job = {
            **self.made[name],
            "state": f"PIPELINE_STATE_{'CANCELLED' if self.cancelled else state}",
            "jobDetail": detail,
        }
        return job | ({"error": {"message": self.error}} if self.error else {})

    def login(self) -> dict[str, str]:
        """The key of a service account that logs in here."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project-1",
            "private_key_id": base64.b16encode(b"key").decode(),
            "private_key": private.decode(),
            "client_email": "runner@project-1.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
