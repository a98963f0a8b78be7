"""Runs on Vertex AI Pipelines: submitted, watched, cancelled, repeated.

By REST, which passes where proxies do not let gRPC through. Endpoints can be replaced as gcloud's are, by
CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM and CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.platform import Vertex
from lmworks.configs.shown import shown
from lmworks.tfx.cluster import PASSING, Cron, Fault, Stage, Status, calling, message_of, timestamped

T = TypeVar("T")

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NOT_INSTALLED = "Vertex AI needs google-cloud-aiplatform, which is not installed: pip install 'lmworks[vertex]'"
_LOG_LINES = 200
_CALL_SECONDS = 60.0
_CONTEXT_SECONDS = 60.0
"""How long a run may take to appear in the metadata store, where its experiment is."""
_STATES = {
    "SUCCEEDED": "made", "FAILED": "failed", "SKIPPED": "cached", "NOT_TRIGGERED": "skipped", "CANCELLED": "cancelled",
    "RUNNING": "running", "CANCEL_PENDING": "running", "CANCELLING": "running",
}  # fmt: skip
_ENDS = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELLED": "cancelled"}
_FIXES = {
    401: "gcloud auth application-default login",
    403: "the account needs the role Vertex AI User, and the right to act as platform.vertex.service_account",
}


def in_place(asked: Vertex) -> Vertex:
    """The section with the project and the region that are found where it names none.

    Raises:
        ConfigError: what a run needs is named nowhere, all of it at once.
        UserError: nobody is logged in.
    """
    region = asked.region or next(
        filter(None, map(os.environ.get, ("GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION", "CLOUDSDK_COMPUTE_REGION"))), None
    )
    missing = {
        "region": None if region else "REGION, europe-west4 for example",
        "pipeline_root": None if asked.pipeline_root else "gs://BUCKET/FOLDER, where the artifacts go",
    }
    project = asked.project or (None if any(missing.values()) else _credentials()[1])
    missing["project"] = None if project or any(missing.values()) else "PROJECT of Google Cloud"
    lines = [
        f"platform.vertex.{key} is missing: --set=platform.vertex.{key}={what}" for key, what in missing.items() if what
    ]
    if lines:
        raise ConfigError("\n  ".join(lines))
    return asked.model_copy(update={"project": project, "region": region})


def _credentials() -> tuple[Any, str | None]:
    """Of whoever is logged in, and their project."""
    try:
        import google.auth
    except ImportError:
        raise UserError(_NOT_INSTALLED) from None
    try:
        credentials, project = google.auth.default(scopes=[_SCOPE])
    except google.auth.exceptions.GoogleAuthError as error:
        told = str(error).split(". ")[0]
        raise UserError(
            f"nobody is logged in to Google Cloud ({told}): gcloud auth application-default login"
        ) from None
    return credentials, project


class VertexCluster:
    """Vertex AI in one project and region.

    Args:
        asked: the section `platform.vertex`, with project and region.

    Raises:
        UserError: nobody is logged in, or google-cloud-aiplatform is not installed.
    """

    def __init__(self, asked: Vertex) -> None:
        self.asked = asked
        self.credentials, _ = _credentials()
        self.parent = f"projects/{asked.project}/locations/{asked.region}"
        self.endpoint = _endpoint("AIPLATFORM", f"https://{asked.region}-aiplatform.googleapis.com")
        self._pipelines = self.client("PipelineServiceClient")

    def client(self, kind: str) -> Any:
        """A client of one of Vertex AI's services, by its class's name."""
        try:
            from google.cloud import aiplatform_v1
        except ImportError:
            raise UserError(_NOT_INSTALLED) from None
        return getattr(aiplatform_v1, kind)(
            credentials=self.credentials, transport="rest", client_options={"api_endpoint": self.endpoint}
        )

    def submit(self, package: str, name: str) -> VertexRun:
        """Starts a run; see `cluster.Cluster`."""
        if self.asked.experiment:
            self._make_experiment(self.asked.experiment)
        name = timestamped(name)
        request = {"parent": self.parent, "pipeline_job": self._job(package, name), "pipeline_job_id": name}
        made = self.calling(lambda: self._pipelines.create_pipeline_job(request, timeout=_CALL_SECONDS))
        run = VertexRun(self, self._pipelines, made.name)
        if self.asked.experiment:
            try:
                self._associate(run)
            except (UserError, KeyboardInterrupt) as error:  # the run goes on, and is what was asked for
                print(f"the run stands in no experiment: {shown(error)}", file=sys.stderr, flush=True)
        return run

    def schedule(self, package: str, name: str, cron: Cron) -> str:
        """Starts runs again and again; see `cluster.Cluster`."""
        from google.cloud import aiplatform_v1

        schedules = self.client("ScheduleServiceClient")
        wanted = {"parent": self.parent, "filter": f'display_name="{name}"'}
        known = self.calling(lambda: list(schedules.list_schedules(wanted, timeout=_CALL_SECONDS)))
        if known:
            raise UserError(
                f"there is a schedule {name} already ({self.page('schedules', known[0].name)}): delete it there, or give this one "
                "another name with --run"
            )
        schedule = aiplatform_v1.Schedule(
            display_name=name,
            cron=f"TZ={cron.zone} {cron.fields}" if cron.zone else cron.fields,
            max_concurrent_run_count=1,
            create_pipeline_job_request={"parent": self.parent, "pipeline_job": self._job(package, name)},
        )
        request = {"parent": self.parent, "schedule": schedule}
        made = self.calling(lambda: schedules.create_schedule(request, timeout=_CALL_SECONDS))
        return self.page("schedules", made.name)

    def calling(self, call: Callable[[], T]) -> T:
        """Calls Google Cloud, again where it asks to wait."""
        return calling(lambda: ask(self.endpoint, call))

    def _job(self, package: str, name: str) -> Any:
        from google.cloud import aiplatform_v1

        asked = self.asked
        return aiplatform_v1.PipelineJob(
            display_name=name,
            pipeline_spec=yaml.safe_load(Path(package).read_text(encoding="utf-8")),
            runtime_config={"gcs_output_directory": asked.pipeline_root},
            labels=asked.labels,
            service_account=asked.service_account or "",
            network=asked.network or "",
            encryption_spec={"kms_key_name": asked.encryption_key} if asked.encryption_key else None,
        )

    def _make_experiment(self, name: str) -> None:
        from google.cloud import aiplatform

        aiplatform.init(
            project=self.asked.project,
            location=self.asked.region,
            credentials=self.credentials,
            encryption_spec_key_name=self.asked.encryption_key,
            api_endpoint=self.endpoint,
            api_transport="rest",
        )
        self.calling(lambda: aiplatform.Experiment.get_or_create(name))

    def _associate(self, run: VertexRun) -> None:
        """Puts a run under its experiment, as soon as the run is known to the metadata store."""
        store = f"{self.parent}/metadataStores/default/contexts"
        until = time.monotonic() + _CONTEXT_SECONDS
        while not (context := calling(run.context, (None, *PASSING))):
            if time.monotonic() > until:
                raise UserError(f"it did not appear in the metadata store in {_CONTEXT_SECONDS:.0f} s")
            time.sleep(1.0)
        request = {"context": f"{store}/{self.asked.experiment}", "child_contexts": [context]}
        metadata = self.client("MetadataServiceClient")
        self.calling(lambda: metadata.add_context_children(request, timeout=_CALL_SECONDS))

    def page(self, kind: str, name: str) -> str:
        """A link to the page of a run or a schedule."""
        return (
            f"https://console.cloud.google.com/vertex-ai/locations/{self.asked.region}/pipelines/{kind}/"
            f"{name.rpartition('/')[2]}?project={self.asked.project}"
        )


class VertexRun:
    """A run; see `cluster.Run`."""

    def __init__(self, cluster: VertexCluster, pipelines: Any, name: str) -> None:
        self._cluster, self._pipelines, self._name = cluster, pipelines, name
        self._containers: dict[str, str] = {}
        """Ids of the jobs by stage."""
        self.link = cluster.page("runs", name)

    def status(self) -> Status:
        """How far it is."""
        job = self._get()
        stages = {}
        for task in job.job_detail.task_details:
            state = _STATES.get(task.state.name, "waiting")
            told = task.error.message or next((one.error.message for one in reversed(task.pipeline_task_status)), "")
            if state in ("made", "cached"):
                told = next(filter(None, map(_summary, task.outputs.values())), "")
            stages[task.task_name] = Stage(state, _seconds(task.start_time, task.end_time), told)
            if container := task.executor_detail.container_detail.main_job:
                self._containers[task.task_name] = container.rpartition("/")[2]
        state = job.state.name.removeprefix("PIPELINE_STATE_")
        return Status(_ENDS.get(state, "running"), stages, job.error.message)

    def log(self, stage: str) -> list[str]:
        """The last lines of a stage, from Cloud Logging."""
        if stage not in self._containers:
            return []
        from google.auth.transport.requests import AuthorizedSession

        base = _endpoint("LOGGING", "https://logging.googleapis.com")
        wanted = {
            "resourceNames": [f"projects/{self._cluster.asked.project}"],
            "filter": f'resource.type="ml_job" AND resource.labels.job_id="{self._containers[stage]}"',
            "orderBy": "timestamp desc",
            "pageSize": _LOG_LINES,
        }

        def call() -> Any:
            answer = AuthorizedSession(self._cluster.credentials).post(
                f"{base}/v2/entries:list", json=wanted, timeout=_CALL_SECONDS
            )
            if not answer.ok:
                raise Fault(f"Cloud Logging at {base}", answer.text, answer.status_code)
            return answer.json()

        entries = ask(base, call).get("entries", [])
        texts = (entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "") for entry in entries[::-1])
        return [line for text in texts for line in str(text).splitlines()]

    def cancel(self) -> None:
        """Asks Vertex AI to end it."""
        self._cluster.calling(lambda: self._pipelines.cancel_pipeline_job({"name": self._name}, timeout=_CALL_SECONDS))

    def context(self) -> str:
        """Its name in the metadata store; empty while it has none."""
        return str(self._get().job_detail.pipeline_run_context.name)

    def _get(self) -> Any:
        return ask(
            self._cluster.endpoint,
            lambda: self._pipelines.get_pipeline_job({"name": self._name}, timeout=_CALL_SECONDS),
        )


def ask(endpoint: str, call: Callable[[], T]) -> T:
    """Calls Google Cloud, whose faults become ours.

    Raises:
        Fault: with what it said.
    """
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests

    server = f"Vertex AI at {endpoint}"
    try:
        return call()
    except google.api_core.exceptions.GoogleAPICallError as error:
        code = int(error.code) if error.code else 500
        told = re.sub(r"^[A-Z]+ https?://\S+: ", "", str(error.message))
        wait = getattr(error.response, "headers", {}).get("Retry-After", "")
        raise Fault(server, told, code, float(wait) if wait.isdecimal() else None, _FIXES.get(code, "")) from None
    except google.auth.exceptions.TransportError as error:
        raise Fault("Google's login", str(error).partition("(")[0]) from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise Fault("Google's login", message_of(error.args[0] if error.args else ""), 401, fix=_FIXES[401]) from None
    except requests.exceptions.RequestException as error:
        reason = re.sub(r"[\"')]+$", "", str(error).rpartition(": ")[2]) or type(error).__name__
        raise Fault(server, reason, fix="is platform.vertex.region right, and the network up?") from None


def _endpoint(service: str, usual: str) -> str:
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", usual).rstrip("/")


def _summary(output: Any) -> str:
    """What the artifacts of an output say of themselves."""
    return next((str(one.metadata["summary"]) for one in output.artifacts if "summary" in (one.metadata or {})), "")


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()) if start else 0.0
