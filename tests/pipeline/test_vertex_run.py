"""lmworks run --runner=vertex against servers that answer as Vertex AI, Cloud Logging and Google's login do."""

import json
import time

import pytest
import yaml

from lmworks.pipeline.main import main
from tests.conftest import REPOSITORY
from tests.pipeline.servers import STAGES

TINY = REPOSITORY / "configs" / "tiny.yaml"
PLACE = [
    "platform.image=europe-docker.pkg.dev/project-1/repository/lmworks:0.1.0",
    "platform.vertex.region=europe-west4",
    "platform.vertex.pipeline_root=gs://bucket/lmworks",
]
PARENT = "/v1/projects/project-1/locations/europe-west4"
DONE, RUNNING = dict.fromkeys(STAGES, "made"), {"ingest": "made", "preprocess": "made", "train": "running"}


def run(*more, sets=(), place=PLACE) -> int:
    told = [f"--set={one}" for one in (*place, *sets)]
    return main(["run", f"--config={TINY}", "--runner=vertex", *told, *more])


def check(body: dict) -> dict:
    """Holds a run's body against aiplatform's and kfp's own models; the pipeline."""
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    job = aiplatform_v1.PipelineJob.from_json(json.dumps(body), ignore_unknown_fields=False)
    spec = json_format.MessageToDict(job._pb.pipeline_spec)
    assert spec == body["pipelineSpec"]
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    return spec


def test_run_is_submitted_and_followed_to_its_end(google, capfd):
    google.frames = [
        {"ingest": "waiting"},
        {"ingest": "running"},
        {"ingest": "cached", "preprocess": "made", "train": "running"},
        DONE | {"ingest": "cached"},
    ]
    google.summaries = {"train": "22M parameters, best accuracy 0.9"}
    google.logs = {"train": ["step 1", "step 2"]}
    key = "projects/project-1/locations/europe-west4/keyRings/ring/cryptoKeys/key"
    sets = [
        "platform.vertex.service_account=train@project-1.iam.gserviceaccount.com",
        "platform.vertex.network=projects/1/global/networks/inner",
        "platform.vertex.labels={team: nlp, year: 2026}",
        f"platform.vertex.encryption_key={key}",
        "platform.train.gpu={type: NVIDIA_L4}",
    ]
    assert run("--run=nightly_Tiny", "--verbosity=1", sets=sets) == 0
    out, err = capfd.readouterr()
    (link,) = out.splitlines()
    assert link.startswith(
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/nightly-tiny-2"
    )
    assert link.endswith("?project=project-1")
    lines = err.splitlines()
    assert [line for line in lines if "|" in line] == ["train       | step 1", "train       | step 2"]
    results = [line for line in lines if "|" not in line]
    assert [line.split()[:2] for line in results] == [
        ["ingest", "hit"], ["preprocess", "made"], ["train", "made"], ["evaluate", "made"], ["export", "made"],
    ]  # fmt: skip
    assert "100.0 s  22M parameters, best accuracy 0.9" in results[2]
    (asked,) = [one for one in google.asked if one[0] == "POST" and one[1] == f"{PARENT}/pipelineJobs"]
    body = asked[3]
    spec = check(body)
    assert asked[2]["pipelineJobId"] == [body["displayName"]]
    assert body["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/lmworks"
    assert body["serviceAccount"] == "train@project-1.iam.gserviceaccount.com"
    assert body["network"] == "projects/1/global/networks/inner"
    assert body["labels"] == {"team": "nlp", "year": "2026"}
    assert body["encryptionSpec"] == {"kmsKeyName": key}
    assert (
        spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["accelerator"]["type"]
        == "NVIDIA_L4"
    )
    sent = [{name.lower(): value for name, value in told.items()} for told in google.headers]
    assert all(told["authorization"].startswith("Bearer ") for told in sent if "authorization" in told)
    assert sent[-1]["authorization"]


def test_unblessed_is_exit_code_3(google, capfd):
    for gate in ({}, {"export": "skipped"}):
        google.frames = [dict.fromkeys(STAGES[:4], "made") | gate]
        assert run() == 3
        assert capfd.readouterr().err.splitlines()[-1].split()[:2] == ["export", "skip"]


def test_a_failed_stage_says_why(google, capfd):
    google.frames = [RUNNING, RUNNING | {"train": "failed"}]
    google.messages = {"train": "The replica workerpool0-0\nexited with a non-zero status of 1."}
    google.logs = {"train": ["step 7", "lmworks.pipeline.train.component:train: the disk is full"]}
    assert run() == 1
    *_, tail, last = capfd.readouterr().err.splitlines()
    assert tail == "train       | lmworks.pipeline.train.component:train: the disk is full"
    assert "train: The replica workerpool0-0 exited with a non-zero status of 1.; the disk is full: https://" in last


def test_detached_and_cancelled(google, capfd):
    google.frames = [RUNNING]
    assert run("--detach") == 0
    assert len(google.bodies("POST .*/pipelineJobs$")) == 1
    assert not google.bodies("GET .*/pipelineJobs/")
    google.cancelled = True
    assert run() == 1
    assert "the run was cancelled on the cluster: https://" in capfd.readouterr().err.splitlines()[-1]


def test_ctrl_c_can_cancel_the_run(google, monkeypatch, capfd):
    from types import SimpleNamespace

    google.frames = [RUNNING]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run() == 130
    assert google.cancelled
    assert "the run is being cancelled: https://" in capfd.readouterr().err


def test_schedule(google, capfd):
    assert run("--cron=TZ=Europe/Berlin 0 3 * * *") == 0
    assert "/pipelines/schedules/" in capfd.readouterr().out
    (body,) = google.bodies("POST .*/schedules$")
    from google.cloud import aiplatform_v1

    schedule = aiplatform_v1.Schedule.from_json(json.dumps(body), ignore_unknown_fields=False)
    assert (schedule.cron, schedule.display_name, schedule.max_concurrent_run_count) == (
        "TZ=Europe/Berlin 0 3 * * *", "tiny", 1,
    )  # fmt: skip
    check(body["createPipelineJobRequest"]["pipelineJob"])
    assert run("--cron=0 4 * * *") == 1
    assert "there is a schedule tiny already" in capfd.readouterr().err
    assert run("--cron=TZ=Europe/Berlin 0 3 * *") == 2


def test_experiment(google):
    for _ in range(2):
        assert run("--detach", sets=["platform.vertex.experiment=compare"]) == 0
    store = "projects/project-1/locations/europe-west4/metadataStores/default"
    experiment = google.made[f"{store}/contexts/compare"]
    assert experiment["schemaTitle"] == "system.Experiment"
    assert len(experiment["childContexts"]) == 2


def test_an_experiment_that_fails_loses_no_run(google, capfd):
    google.fails(":addContextChildren", 403, {"error": {"code": 403, "message": "Permission denied"}}, times=9)
    assert run(sets=["platform.vertex.experiment=compare"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("https://console.cloud.google.com/")
    assert "the run stands in no experiment: Vertex AI at" in err
    assert "Permission denied" in err


def test_model_registry_is_a_last_step(google, tmp_path):
    google.frames = [DONE | {"register": "made"}]
    assert run("--run=friday", sets=["platform.vertex.register_model={display_name: reviews}"]) == 0
    (body,) = google.bodies("POST .*/pipelineJobs$")
    gate = body["pipelineSpec"]["components"]["comp-condition-1"]["dag"]["tasks"]
    assert set(gate) == {"export", "register"}
    told = json.loads(gate["register"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"])
    assert (told["project"], told["region"], told["display_name"]) == ("project-1", "europe-west4", "reviews")
    assert told["name"] == "friday"
    output = tmp_path / "k.yaml"
    arguments = ["--target=kubeflow", "--set=platform.vertex.register_model={}", f"--output={output}"]
    assert main(["compile", f"--config={TINY}", *arguments]) == 0
    assert "exec-register" not in yaml.safe_load(output.read_text())["deploymentSpec"]["executors"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, "Request had invalid authentication credentials.", "answers 401 (not logged in): Request had invalid "
         "authentication credentials.; gcloud auth application-default login"),
        (403, "Permission 'aiplatform.pipelineJobs.create' denied", "answers 403 (not allowed): Permission "
         "'aiplatform.pipelineJobs.create' denied; the account needs the role Vertex AI User"),
        (400, "Machine type n1 is not supported", "answers 400 (bad request): Machine type n1 is not supported"),
        (500, "Internal error encountered.", "answers 500 (internal error): Internal error encountered."),
    ],
)  # fmt: skip
def test_a_server_that_refuses_is_one_line(google, capfd, status, body, words):
    answer = {"error": {"code": status, "message": body, "status": "X"}}
    google.fails("POST .*/pipelineJobs$", status, answer, times=9)  # after a 401 Google's client logs in anew, twice
    assert run() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"lmworks run: Vertex AI at {google.url} {words}"), line


def test_a_busy_server_is_asked_again(google, capfd):
    quota = {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}}
    google.fails("POST .*/pipelineJobs$", 429, quota, times=2, Retry_After="0")
    assert run("--detach") == 0
    assert [("Quota exceeded; once more in" in line) for line in capfd.readouterr().err.splitlines()] == [True, True]
    google.fails("POST .*/pipelineJobs$", 429, quota, times=99)
    assert run("--detach") == 1
    assert "answers 429 (too many requests): Quota exceeded" in capfd.readouterr().err.splitlines()[-1]


def test_a_short_outage_does_not_end_the_watch(google, capfd):
    google.frames = [RUNNING, RUNNING, DONE]
    google.fails("GET .*/pipelineJobs/", 503, {"error": {"code": 503, "message": "away"}}, times=3)
    google.fails("POST .*/entries:list", 403, {"error": {"code": 403, "message": "no logs for you"}})
    assert run() == 0
    assert len([line for line in capfd.readouterr().err.splitlines() if "once more in" in line]) == 3


def test_a_server_that_is_down_is_one_line(google, capfd, monkeypatch):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "http://127.0.0.1:9")
    assert run() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("lmworks run: Vertex AI at http://127.0.0.1:9 cannot be reached: ")
    assert line.endswith("Connection refused; is platform.vertex.region right, and the network up?")


def test_a_login_that_is_not_taken_is_one_line(google, capfd, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("from another identity provider")
    key = {"type": "external_account", "audience": "//iam.googleapis.com/pool", "token_url": f"{google.url}/token"}
    key |= {"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    key |= {"credential_source": {"file": str(tmp_path / "token")}}
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project-1")
    google.fails("POST /token", 400, {"error": "invalid_grant", "error_description": "Token is expired."}, times=9)
    assert run() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "Google's login answers 401 (not logged in): " in line
    assert "Token is expired" in line
    assert line.endswith("; gcloud auth application-default login")


def test_nobody_is_logged_in(google, capfd, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert run() == 1
    assert capfd.readouterr().err.splitlines() == [
        "lmworks run: nobody is logged in to Google Cloud (Your default credentials were not found): gcloud auth "
        "application-default login"
    ]


def test_what_is_missing_is_told_at_once(google, capfd):
    assert run(place=PLACE[:1]) == 2
    assert capfd.readouterr().err.splitlines() == [
        "lmworks run: platform.vertex.region is missing: --set=platform.vertex.region=REGION, europe-west4 for example",
        "  platform.vertex.pipeline_root is missing: --set=platform.vertex.pipeline_root=gs://BUCKET/FOLDER, where the artifacts go",
    ]
    assert run(place=PLACE[1:]) == 2
    assert "platform.image: 'lmworks:0.1.0': Vertex AI pulls it from a registry" in capfd.readouterr().err
    assert not google.asked


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("pipeline_root=s3://bucket", "pipeline_root: 's3://bucket': must be in a bucket, gs://BUCKET/FOLDER"),
        ("encryption_key=mine", "must be projects/PROJECT/locations/LOCATION/keyRings/KEYRING/cryptoKeys/CRYPTOKEY"),
        ("network=inner", "must be projects/PROJECT/global/networks/"),
        ("labels={Team: nlp}", "labels.Team: must be lower-case"),
        ("service_account=me", "service_account: 'me'"),
        ("region=Europe", "region: 'Europe'"),
    ],
)
def test_bad_config(google, capfd, sets, words):
    assert run(sets=[f"platform.vertex.{sets}"]) == 2
    err = capfd.readouterr().err
    assert words in err, err
    assert len(err.splitlines()) == 2
