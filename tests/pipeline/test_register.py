"""The stage that enters a servable into Vertex AI's Model Registry."""

import json

import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import RegisterStage
from lmworks.pipeline.register.component import register
from lmworks.tfx import buckets
from lmworks.tfx.artifacts import Registration, Servable, publish, read

MODELS = "projects/project-1/locations/europe-west4/models"


def servable(folder, content="graph", kind="saved_model"):
    (folder / kind).mkdir(parents=True)
    (folder / kind / "saved_model.pb").write_text(content)
    publish(Servable(folder), "servable", {"id": "export/1"})
    return read(Servable, folder)


def enter(made, folder, **keys):
    folder.mkdir()
    place = {"project": "project-1", "region": "europe-west4", "encryption_key": None}
    config = RegisterStage(**{"name": "tiny", **place, **keys})
    registration = Registration(folder)
    register(config=config, servable=made, registration=registration)
    return registration


def test_a_servable_becomes_a_version_and_only_once(google, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "_MOUNTS", {"gs://": f"{tmp_path}/"})
    first = servable(tmp_path / "bucket" / "servable")
    made = enter(first, tmp_path / "bucket" / "registration")
    (name,) = [one for one in google.made if one.startswith(MODELS) and "@" not in one]
    assert made.properties["model"] == f"{name}@1"
    assert json.loads((made.path / "registration.json").read_text()) == {
        "model": f"{name}@1",
        "artifact_uri": "gs://bucket/registration",
    }
    assert (made.path / "1" / "saved_model.pb").read_text() == "graph"  # as TensorFlow Serving wants it
    (body,) = google.bodies(":upload$")
    from google.cloud import aiplatform_v1

    asked = aiplatform_v1.UploadModelRequest.from_json(json.dumps(body), ignore_unknown_fields=False)
    assert asked.model.artifact_uri == "gs://bucket/registration"
    assert asked.model.container_spec.predict_route == "/v1/models/tiny:predict"
    assert asked.model.version_aliases == ["default"]
    assert first.digest.startswith(asked.model.labels["lmworks_servable"])

    again = enter(first, tmp_path / "again")  # a container that was retried after it had registered
    assert again.properties["model"] == f"{name}@1"
    assert json.loads((again.path / "registration.json").read_text())["artifact_uri"] == "gs://bucket/registration"
    assert not (again.path / "1").exists()
    assert len(google.bodies(":upload$")) == 1

    config = RegisterStage(name="tiny", project="project-1", region="europe-west4", encryption_key=None)
    assert register.holds(config, registration=made) == register.holds(config, registration=again) == ""
    gone = Registration(tmp_path, made.properties | {"model": f"{name}@7", "label": "0" * 63})
    assert register.holds(config, registration=gone) == f"{name}@7 is not there"

    other = enter(servable(tmp_path / "other", "another graph"), tmp_path / "third", default=False)
    assert other.properties["model"] == f"{name}@2"
    assert google.bodies(":upload$")[1]["parentModel"] == name
    assert "versionAliases" not in google.bodies(":upload$")[1]["model"]


def test_in_a_job_the_place_is_the_jobs(google, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_ML_PROJECT_ID", "project-2")
    monkeypatch.setenv("CLOUD_ML_REGION", "us-central1")
    made = enter(servable(tmp_path / "a"), tmp_path / "b", project=None, region=None, display_name="reviews")
    assert made.properties["model"].startswith("projects/project-2/locations/us-central1/models/")
    assert google.bodies(":upload$")[0]["model"]["displayName"] == "reviews"


def test_nothing_to_register(google, tmp_path):
    with pytest.raises(UserError, match=r"has no saved_model; export.formats must name it"):
        enter(servable(tmp_path / "a", kind="huggingface"), tmp_path / "b")
    assert not google.asked


def test_registry_that_refuses(google, tmp_path):
    google.fails(":upload$", 403, {"error": {"code": 403, "message": "Permission denied"}}, times=9)
    with pytest.raises(UserError, match=r"answers 403 .not allowed.: Permission denied"):
        enter(servable(tmp_path / "a"), tmp_path / "b")
