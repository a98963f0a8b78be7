"""lmworks run --runner=kubeflow against a server that answers as Kubeflow Pipelines does."""

import json
import re
import time
from types import SimpleNamespace

import pytest

from lmworks.pipeline import submit
from lmworks.pipeline.main import main
from lmworks.tfx import cluster
from tests.conftest import REPOSITORY
from tests.pipeline.servers import STAGES, KubeflowServer

TINY = REPOSITORY / "configs" / "tiny.yaml"
DONE, RUNNING = dict.fromkeys(STAGES, "made"), {"ingest": "made", "preprocess": "made", "train": "running"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = KubeflowServer()
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 0.01)
    for name in ("KF_PIPELINES_ENDPOINT", "KFP_EXISTING_TOKEN", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.stop()


def run(server, *more, sets=()) -> int:
    told = [f"--set={one}" for one in (f"platform.kubeflow.host={server.url}", *sets)]
    return main(["run", f"--config={TINY}", "--runner=kubeflow", *told, *more])


def test_run_is_submitted_and_followed_to_its_end(server, capfd):
    server.frames = [
        {"ingest": "starting"},
        {"ingest": "running"},
        {"ingest": "cached", "preprocess": "made", "train": "running"},
        {"ingest": "cached", "preprocess": "made", "train": "made", "evaluate": "running"},
        DONE | {"ingest": "cached"},
    ]
    server.logs = {"train": ["INFO: warming up", "train made 22M parameters, best accuracy 0.9"]}
    sets = ["platform.kubeflow.service_account=runner", "platform.kubeflow.pipeline_root=s3://bucket/lmworks"]
    assert run(server, sets=sets) == 0
    out, err = capfd.readouterr()
    assert out == f"{server.url}/#/runs/details/run-1\n"
    lines = err.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ingest", "hit"], ["preprocess", "made"], ["train", "made"], ["evaluate", "made"], ["export", "made"],
    ]  # fmt: skip
    assert lines[2] == "train       made   100.0 s  22M parameters, best accuracy 0.9  [on the cluster]"
    (body,) = server.bodies("POST .*/runs$")
    check(body)
    assert body["display_name"].startswith("tiny-2")
    assert (body["experiment_id"], body["service_account"]) == ("experiment-1", "runner")
    assert body["runtime_config"]["pipeline_root"] == "s3://bucket/lmworks"
    assert server.bodies("POST .*/experiments$")[0]["display_name"] == "tiny"


def check(body: dict) -> None:
    """Holds a run's body against kfp's own models: nothing that they do not know, nothing of another type."""
    import kfp_server_api
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    client = kfp_server_api.ApiClient()
    model = client.deserialize(SimpleNamespace(data=json.dumps(body)), "V2beta1Run")
    assert client.sanitize_for_serialization(model) == body
    spec = body["pipeline_spec"]  # with one of the platform beside it where it is needed
    read = json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())
    assert set(read.root.dag.tasks) == {*STAGES[:4], "gate-evaluate"}
    json_format.ParseDict(spec.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())


def test_what_only_kubernetes_has_is_submitted_too(server):
    sets = ["platform.train.secrets={HF_TOKEN: hub/token}", "platform.train.node_selector={disk: ssd}"]
    assert run(server, "--detach", sets=sets) == 0
    (body,) = server.bodies("POST .*/runs$")
    check(body)
    (own,) = body["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert own["secretAsEnv"][0]["secretName"] == "hub"
    assert server.counts()["GET /apis/v2beta1/runs/run-1"] == 0  # nobody watches


def test_until_submits_the_first_stages_only(server):
    server.frames = [{"ingest": "made", "preprocess": "made"}]
    assert run(server, "--until=preprocess") == 0
    (body,) = server.bodies("POST .*/runs$")
    assert set(body["pipeline_spec"]["root"]["dag"]["tasks"]) == {"ingest", "preprocess"}


def test_unblessed_is_exit_code_3(server, capfd):
    server.frames = [dict.fromkeys(STAGES[:4], "made")]
    assert run(server) == 3
    assert capfd.readouterr().err.splitlines()[-1].split()[:2] == ["export", "skip"]


@pytest.mark.parametrize("shows_workflow", [True, False])
def test_a_failed_stage_says_why(server, capfd, shows_workflow):
    server.shows_workflow = shows_workflow
    server.frames = [RUNNING, RUNNING | {"train": "failed"}]
    server.messages = {"train": "OOMKilled (exit code 137)"}
    server.logs = {"train": ["step 7", "lmworks.pipeline.train.component:train: the disk is full"]}
    server.error = "the workflow failed"
    assert run(server) == 1
    err = capfd.readouterr().err.splitlines()
    if shows_workflow:
        assert err[-2] == "train       | lmworks.pipeline.train.component:train: the disk is full"
        told = "OOMKilled (exit code 137); the disk is full"
    else:
        told = "the workflow failed"
    assert err[-1] == f"lmworks run: train: {told}: {server.url}/#/runs/details/run-1"


def test_a_stage_whose_driver_fails_is_named(server, capfd):
    server.frames = [{"ingest": "made", "preprocess": "undriven"}]
    server.logs = {"preprocess": ["failed to resolve the input examples"]}
    assert run(server) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("lmworks run: preprocess: its driver failed; failed to resolve the input examples: http")


def test_a_stage_that_cannot_start_says_why_it_waits(server, capfd, monkeypatch):
    from lmworks.tfx.screen import Screen

    said = []
    monkeypatch.setattr(Screen, "say", lambda screen, stage, told: said.append((stage, told)))
    server.messages = {"ingest": "ImagePullBackOff"}
    server.frames = [{"ingest": "starting"}, {"ingest": "waiting"}, DONE]
    assert run(server) == 0
    assert ("ingest", "waits: ImagePullBackOff") in said
    assert any(stage == "ingest" and re.search(r"\d:\d\d  ImagePullBackOff$", told) for stage, told in said)


def test_verbose_shows_every_line_once(server, capfd):
    server.logs = {"train": ["one", "two"]}
    server.frames = [RUNNING, RUNNING, RUNNING, DONE]
    assert run(server, "--verbosity=1") == 0
    err = capfd.readouterr().err.splitlines()
    assert [line for line in err if line.startswith("train       |")] == ["train       | one", "train       | two"]


def test_cancelled_on_the_cluster(server, capfd):
    server.frames = [RUNNING]
    server.cancelled = True
    assert run(server) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("lmworks run: the run was cancelled on the cluster: http")


@pytest.mark.parametrize(("answer", "cancels"), [("y", True), ("", False), (None, False), (EOFError, False)])
def test_ctrl_c_leaves_the_run_or_cancels_it(server, monkeypatch, capfd, answer, cancels):
    server.frames = [RUNNING]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: answer is not None))
    monkeypatch.setattr(
        "builtins.input", lambda question: answer if isinstance(answer, str) else (_ for _ in ()).throw(answer())
    )
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(server) == 130
    told = "is being cancelled" if cancels else "goes on"
    assert capfd.readouterr().err.splitlines()[-1] == f"lmworks run: the run {told}: {server.url}/#/runs/details/run-1"
    assert server.cancelled == cancels


def test_schedule(server, capfd):
    assert run(server, "--cron=0 3 * * 1-5") == 0
    assert capfd.readouterr().out == f"{server.url}/#/recurringrun/details/schedule-1\n"
    (body,) = server.bodies("POST .*/recurringruns$")
    assert body["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1-5"}}
    assert (body["display_name"], body["mode"], body["max_concurrency"]) == ("tiny", "ENABLE", 1)
    import kfp_server_api

    client = kfp_server_api.ApiClient()
    model = client.deserialize(SimpleNamespace(data=json.dumps(body)), "V2beta1RecurringRun")
    assert client.sanitize_for_serialization(model).keys() == body.keys()
    assert run(server, "--cron=0 4 * * *") == 1
    assert "there is a schedule tiny already" in capfd.readouterr().err
    assert len(server.bodies("POST .*/recurringruns$")) == 1


@pytest.mark.parametrize(
    "cron", ["x", "0 3 * *", "60 3 * * *", "0 0 3 * * *", "0 3 * * MON", "0 3 * * 7", "*/0 3 * * *", "5-1 3 * * *"]
)
def test_no_cron_expression(server, capfd, cron):
    assert run(server, f"--cron={cron}") == 2
    assert "must be five fields" in capfd.readouterr().err
    assert not server.bodies("recurringruns")


def test_kubeflow_has_one_time_zone(server, capfd):
    assert run(server, "--cron=TZ=Europe/Berlin 0 3 * * *") == 2
    assert "--cron: TZ=Europe/Berlin: Kubeflow runs by its own time zone" in capfd.readouterr().err


GATEWAY = {"error": "x", "code": 2, "message": "the database is away", "details": []}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            401,
            {"error": "x", "message": "Unauthenticated"},
            "answers 401 (not logged in): Unauthenticated; log in as your",
        ),
        (403, "<html>no</html>", "answers 403 (not allowed): Forbidden; platform.kubeflow.namespace must be one that"),
        (500, GATEWAY, "answers 500 (internal error): the database is away"),
    ],
)
@pytest.mark.parametrize("where", ["GET .*healthz", "POST .*/runs$"])
def test_a_server_that_refuses_is_one_line(server, capfd, status, body, words, where):
    server.fails(where, status, body)
    assert run(server) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lmworks run: Kubeflow at {server.url} {words}"), line


def test_a_busy_server_is_asked_again_and_the_run_is_submitted_once(server, capfd):
    server.fails("POST .*/runs$", 429, {"message": "slow down"}, times=2, Retry_After="0")
    assert run(server, "--detach") == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "answers 429 (too many requests): slow down; once more in" in lines[0]
    assert len(server.bodies("POST .*/runs$")) == 3
    server.fails("POST .*/runs$", 429, times=99)
    assert run(server, "--detach") == 1
    assert "answers 429" in capfd.readouterr().err.splitlines()[-1]
    assert len(server.bodies("POST .*/runs$")) == 3 + 5


def test_a_server_that_is_down_is_one_line(server, capfd):
    server.stop()
    assert run(server) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lmworks run: Kubeflow at {server.url} cannot be reached: ")
    assert line.endswith("Connection refused; is platform.kubeflow.host right, and the cluster up?")


def test_a_short_outage_does_not_end_the_watch(server, capfd):
    server.frames = [RUNNING, RUNNING, DONE]
    server.fails("GET .*v2beta1/runs/run-1", 502, "<html>bad gateway</html>", times=3)
    server.fails("GET .*v1beta1/runs/run-1", 503)
    server.fails("GET .*/log$", 500)
    server.logs = {"train": ["one", "train made 22M parameters"]}
    assert run(server) == 0
    err = capfd.readouterr().err.splitlines()
    assert len([line for line in err if "once more in" in line]) == 3
    assert "train       made   100.0 s  22M parameters  [on the cluster]" in err  # the logs came back


PAGE = "<html>Log in to your account</html>"


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("POST .*/experiments$", ["--detach"]),
        ("POST .*/runs$", ["--detach"]),
        ("POST .*/recurringruns$", ["--cron=0 3 * * *"]),
        ("GET .*v2beta1/runs/run-1", []),
    ],
)
def test_a_login_page_is_not_taken_for_an_answer(server, capfd, where, arguments):
    server.fails(where, 200, PAGE)
    assert run(server, *arguments) == 1
    out, err = capfd.readouterr()
    assert "None" not in out
    assert "answers 401 (not logged in): that is a page, and not the API; log in as your installation asks" in err


def test_a_login_page_in_place_of_the_workflow_costs_the_logs_only(server):
    server.frames = [RUNNING, DONE]
    server.fails("GET .*v1beta1/runs/run-1", 200, PAGE, times=2)
    assert run(server) == 0


def test_a_run_of_which_no_stage_is_known_is_not_called_unblessed(server, capfd):
    server.frames = [{}]
    assert run(server) == 0
    assert "of some stages the cluster says nothing" in capfd.readouterr().err


def test_a_login_that_expires_while_one_watches_does_not_hide_that_the_run_goes_on(server, capfd):
    server.frames = [RUNNING]
    server.fails("GET .*v2beta1/runs/run-1", 401, {"message": "expired"})
    assert run(server) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "answers 401 (not logged in): expired; " in line
    assert line.endswith(f"; the run goes on: {server.url}/#/runs/details/run-1")


@pytest.mark.parametrize("mounted", [False, True])
def test_a_token_is_sent_and_never_shown(server, monkeypatch, capfd, tmp_path, mounted):
    (tmp_path / "token").write_text("very-secret")
    monkeypatch.setenv(
        *("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token")) if mounted else ("KFP_EXISTING_TOKEN", "very-secret")
    )
    server.fails("POST .*/runs$", 401)
    assert run(server) == 1
    sent = [{name.lower(): value for name, value in told.items()} for told in server.headers]
    assert {told.get("authorization") for told in sent} == {"Bearer very-secret"}
    assert "very-secret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root=elsewhere"], "--root is for this machine, not for --runner=kubeflow"),
        (["--in_process"], "--in_process is for this machine"),
        (["--detach", "--cron=0 3 * * *"], "--cron makes a schedule"),
        (["--set=platform.kubeflow.host=kf.example.com"], "host: 'kf.example.com': must be http"),
        (["--set=platform.kubeflow.ca_file=none.pem"], "platform.kubeflow.ca_file: none.pem: no such file in "),
        (["--set=platform.train.gpu={type: A100}"], "platform.train.gpu.type: 'A100': Kubernetes knows"),
    ],
)
def test_bad_usage(server, capfd, arguments, words):
    assert run(server, *arguments) == 2
    assert words in capfd.readouterr().err
    assert not server.bodies("runs")


def test_a_password_in_the_host_is_refused_and_not_shown(server, capfd):
    assert run(server, sets=["platform.kubeflow.host=https://me:hunter2@kf.example.com"]) == 2
    err = capfd.readouterr().err
    assert "must not hold a user or a password; set KFP_EXISTING_TOKEN in the environment" in err
    assert "hunter2" not in err


def test_no_cluster_is_named(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    assert main(["run", f"--config={TINY}", "--runner=kubeflow"]) == 2
    assert capfd.readouterr().err.startswith("lmworks run: platform.kubeflow.host is missing")


def test_flags_of_clusters_are_not_for_this_machine(capfd):
    for flag in ("--detach", "--cron=0 3 * * *"):
        assert main(["run", f"--config={TINY}", flag]) == 2
        assert "is for clusters: --runner=kubeflow|vertex" in capfd.readouterr().err


def test_targets_of_the_command_are_those_there_are():
    from lmworks.pipeline.main import _TARGETS

    assert tuple(submit.TARGETS) == _TARGETS
