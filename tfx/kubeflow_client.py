"""Runs on Kubeflow Pipelines: submitted, watched, cancelled, repeated.

What stages do comes from two places. `v2beta1` of the API gives the state of each. Pods, and why one waits or failed, stand in
Argo's workflow, which only `v1beta1` shows; where that is not served, states are all there is.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.paths import find, places
from lmworks.configs.platform import Kubeflow
from lmworks.tfx.cluster import Cron, Fault, Stage, Status, calling, message_of, timestamped

T = TypeVar("T")

_LOG_LINES = 500
"""Of a stage's log that are kept; a container's whole log comes with each look."""
_DRIVER = "-driver"
_STATES = {
    "SUCCEEDED": "made", "FAILED": "failed", "SKIPPED": "skipped", "CANCELED": "cancelled", "CANCELING": "running",
    "RUNNING": "running", "PENDING": "waiting", "PAUSED": "waiting",
}  # fmt: skip
_ENDS = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELED": "cancelled", "SKIPPED": "done"}
_FIXES = {
    401: "log in as your installation asks: a token in KFP_EXISTING_TOKEN, or a cookie in ~/.config/kfp/context.json",
    403: "platform.kubeflow.namespace must be one that you may use",
}


class KubeflowCluster:
    """An installation of Kubeflow Pipelines.

    Args:
        asked: the section `platform.kubeflow`.
        experiment: under which runs are shown where the section names none.

    Raises:
        ConfigError: no installation is named anywhere, or its certificates are not there.
        Fault: it does not answer.
    """

    def __init__(self, asked: Kubeflow, experiment: str) -> None:
        import kfp  # which compiled the pipeline already

        class Client(kfp.Client):
            def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
                """Asked when the client is made; kfp's own asks five times and shows each traceback."""
                return _ask(self._existing_config.host, self._healthz_api.healthz_service_get_healthz)

        ca_file = asked.ca_file and find(asked.ca_file, "platform.kubeflow.ca_file")
        if ca_file and not os.path.isfile(ca_file):
            raise ConfigError(f"platform.kubeflow.ca_file: {ca_file}: no such file{places(ca_file)}")
        self._asked, self._experiment = asked, asked.experiment or experiment
        with _quiet() as said:
            try:
                self._client = Client(
                    host=asked.host,
                    namespace=asked.namespace or os.environ.get("KFP_NAMESPACE") or "kubeflow",
                    existing_token=os.environ.get("KFP_EXISTING_TOKEN"),
                    credentials=_pod_credentials(),
                    ssl_ca_cert=ca_file,
                )
            finally:
                # Then kfp asks this machine itself, whose answer would mislead.
                if "Failed to load kube config" in said.getvalue():
                    raise ConfigError(
                        "platform.kubeflow.host is missing: the URL of Kubeflow Pipelines; or set KF_PIPELINES_ENDPOINT, or let "
                        "kubectl know the cluster"
                    ) from None
        self._host = self._client._existing_config.host

    def submit(self, package: str, name: str) -> KubeflowRun:
        """Starts a run; see `cluster.Cluster`."""
        made = self._calling(
            lambda: self._client.run_pipeline(
                self._experiment_id(),
                timestamped(name),
                package,
                pipeline_root=self._asked.pipeline_root,
                service_account=self._asked.service_account,
            )
        )
        return KubeflowRun(self._client, self._host, _given(self._host, made.run_id))

    def schedule(self, package: str, name: str, cron: Cron) -> str:
        """Starts runs again and again; see `cluster.Cluster`."""
        if cron.zone:
            raise ConfigError(
                f"--cron: TZ={cron.zone}: Kubeflow runs by its own time zone, which is UTC if nobody set another"
            )
        experiment = self._calling(self._experiment_id)
        for one in self._schedules(experiment):
            if one.display_name == name:
                raise UserError(
                    f"there is a schedule {name} already ({self._page('recurringrun', one.recurring_run_id)}): delete it there, or "
                    "give this one another name with --run"
                )
        made = self._calling(
            lambda: self._client.create_recurring_run(
                experiment,
                name,
                cron_expression=f"0 {cron.fields}",  # seconds first
                no_catchup=True,
                pipeline_package_path=package,
                pipeline_root=self._asked.pipeline_root,
                service_account=self._asked.service_account,
            )
        )
        return self._page("recurringrun", _given(self._host, made.recurring_run_id))

    def _schedules(self, experiment: str) -> Iterator[Any]:
        page = ""
        while True:
            listed = functools.partial(self._client.list_recurring_runs, page, 100, experiment_id=experiment)
            found = self._calling(listed)
            yield from found.recurring_runs or ()
            page = found.next_page_token or ""
            if not page:
                return

    def _experiment_id(self) -> str:
        namespace = self._client.get_user_namespace() or None
        return _given(self._host, self._client.create_experiment(self._experiment, namespace=namespace).experiment_id)

    def _calling(self, call: Callable[[], T]) -> T:
        return calling(lambda: _ask(self._host, call))

    def _page(self, kind: str, name: str) -> str:
        return f"{self._client._get_url_prefix()}/#/{kind}/details/{name}"


class KubeflowRun:
    """A run; see `cluster.Run`."""

    def __init__(self, client: Any, host: str, name: str) -> None:
        self._client, self._host, self._name = client, host, name
        self.link = f"{client._get_url_prefix()}/#/runs/details/{name}"
        self._workflow: dict[str, Any] | None = {}
        """Argo's; None where it is not shown."""

    def status(self) -> Status:
        """How far it is."""
        run = _ask(self._host, lambda: self._client.get_run(self._name))
        _given(self._host, run.run_id)
        self._look_at_workflow()
        stages = {}
        details = run.run_details.task_details if run.run_details else None
        for task in details or ():
            state = _STATES.get(task.state or "", "waiting")
            error = task.error.message if task.error else ""
            stages[task.display_name] = Stage(state, _seconds(task.start_time, task.end_time), error or "")
        for driver in [name for name, stage in stages.items() if name.endswith(_DRIVER) and stage.state == "failed"]:
            # Which prepares a stage; the stage itself is then left out, as if nothing were wrong with it.
            stages[driver.removesuffix(_DRIVER)] = stages[driver]._replace(
                told=stages[driver].told or "its driver failed"
            )
        for name in list(stages):
            if pod := self._pod(name):
                state, told = stages[name].state, pod.get("message", "")
                if pod.get("type") == "Skipped" and state == "made":
                    stages[name] = stages[name]._replace(state="cached", told="an earlier result")
                elif told and (state in ("failed", "waiting") or pod.get("phase") == "Pending"):
                    stages[name] = stages[name]._replace(told=told)
        error = run.error.message if run.error else ""
        return Status(_ENDS.get(run.state or "", "running"), stages, error or "")

    def log(self, stage: str) -> list[str]:
        """The last lines of a stage's latest container."""
        pod = self._pod(stage)
        if pod is None or pod.get("type") != "Pod":
            return []
        assert self._workflow is not None
        metadata = self._workflow["metadata"]
        name = pod["id"]
        if metadata.get("annotations", {}).get("workflows.argoproj.io/pod-name-format") != "v1":
            name = f"{metadata['name']}-{pod['templateName']}-{pod['id'].rpartition('-')[2]}"
        text = None
        with contextlib.suppress(Fault):  # it says 500 of a container that is gone
            text = self._get(f"/apis/v1alpha1/runs/{self._name}/nodes/{name}/log")
        if text is None or text.lstrip().startswith('{"error_message"'):
            where = {"podname": name, "runid": self._name, "podnamespace": metadata.get("namespace", "")}
            text = self._get("/k8s/pod/logs", where)  # served by the pages' server, which passes only what it knows
        return (text or "").splitlines()[-_LOG_LINES:]

    def cancel(self) -> None:
        """Asks Kubeflow to end it."""
        _ask(self._host, lambda: self._client.terminate_run(self._name))

    def _look_at_workflow(self) -> None:
        if self._workflow is None:
            return
        try:
            text = self._get(f"/apis/v1beta1/runs/{self._name}")
        except Fault as fault:
            if fault.code is None or fault.code < 500:
                raise
            return  # the next look may have it; until then what is known stays
        if text is None:
            self._workflow = None
            return
        with contextlib.suppress(ValueError):  # a page
            if manifest := json.loads(text).get("pipeline_runtime", {}).get("workflow_manifest"):
                self._workflow = json.loads(manifest)

    def _pod(self, stage: str) -> dict[str, Any] | None:
        """Argo's node of a stage's latest container, of its driver before that, or of the container that was not needed."""
        nodes = (self._workflow or {}).get("status", {}).get("nodes") or {}
        outer = [node["id"] for node in nodes.values() if node["displayName"] == stage and node["type"] == "DAG"]
        inner = [
            node
            for node in nodes.values()
            if (node.get("boundaryID") in outer and node["type"] in ("Pod", "Skipped"))
            or (node["displayName"] == stage + _DRIVER and node["type"] == "Pod")
        ]
        return max(inner, key=lambda node: node.get("startedAt") or "", default=None)

    def _get(self, path: str, query: dict[str, str] | None = None) -> str | None:
        """The text at a path that kfp has no method for; None where it is not served."""

        def call() -> Any:
            return self._client._run_api.api_client.call_api(
                path,
                "GET",
                query_params=list((query or {}).items()),
                auth_settings=["Bearer"],
                _preload_content=False,
                _return_http_data_only=True,
            )

        try:
            return str(_ask(self._host, call).data.decode("utf-8", errors="replace"))
        except Fault as fault:
            if fault.code in (403, 404, 405, 501):
                return None
            raise


def _given(host: str, name: str | None) -> str:
    """An id from the API. A page for logging in comes with status 200, and kfp takes it for an answer that says nothing."""
    if not name:
        raise Fault(_server(host), "that is a page, and not the API", 401, fix=_FIXES[401])
    return str(name)


def _pod_credentials() -> Any:
    """Of the pod that this runs in, where one is mounted for Kubeflow Pipelines; kfp looks for it only if no host is given."""
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    path = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token")
    return ServiceAccountTokenVolumeCredentials(path) if os.path.isfile(path) else None


def _ask(host: str, call: Callable[[], T]) -> T:
    """Calls Kubeflow, whose faults become ours.

    Raises:
        Fault: with what it said.
    """
    import kfp_server_api
    import urllib3

    server = _server(host)
    try:
        with _quiet():
            return call()
    except kfp_server_api.ApiException as error:
        if not error.status:  # kfp's word for a certificate that is not trusted
            fix = "platform.kubeflow.ca_file can name the authority's certificates"
            raise Fault(server, str(error.reason), fix=fix) from None
        try:
            told = message_of(json.loads(error.body))
        except (TypeError, ValueError):  # a proxy's page
            told = str(error.reason or "")
        wait = (error.headers or {}).get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        raise Fault(server, told, error.status, seconds, _FIXES.get(error.status, "")) from None
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        told = str(reason).rpartition(">: ")[2].rpartition(": ")[2] or str(reason)
        raise Fault(server, told, fix="is platform.kubeflow.host right, and the cluster up?") from None


def _server(host: str) -> str:
    parts = urlsplit(host)
    return f"Kubeflow at {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Within it kfp's own links and warnings are caught."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield said


def _seconds(start: datetime | None, end: datetime | None) -> float:
    """How long a task has taken; Kubeflow says 1970 where there is no time."""
    if start is None or start.year <= 1970:
        return 0.0
    return max(0.0, ((end if end and end.year > 1970 else datetime.now(UTC)) - start).total_seconds())
