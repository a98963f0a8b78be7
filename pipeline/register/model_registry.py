"""Vertex AI's Model Registry: a model, and a version of it for each servable."""

from __future__ import annotations

import os
import shutil
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.configs.platform import Vertex
from lmworks.configs.schema import RegisterStage
from lmworks.tfx.artifacts import Registration, Servable, write_json
from lmworks.tfx.buckets import uri_of
from lmworks.tfx.progress import doing
from lmworks.tfx.vertex_client import VertexCluster

_DIGEST = "lmworks_servable"
"""Label of a version: of what it was made."""
_PORT = 8501
_CALL_SECONDS, _UPLOAD_SECONDS = 60.0, 1800.0


def enter(config: RegisterStage, servable: Servable, registration: Registration) -> None:
    """Registers a servable.

    Args:
        config: the stage's.
        servable: what is registered, its `saved_model/`.
        registration: `registration.json`: `model` (name of the resource with its version) and `artifact_uri` (what it is served
            from); and beside it, where that is here, `1/`, the SavedModel in the layout that TensorFlow Serving reads.

    Raises:
        UserError: Vertex AI did not take it, or it has no SavedModel.
    """
    if not (servable.path / "saved_model").is_dir():
        raise UserError(f"{servable.path}: has no saved_model; export.formats must name it to register a model")
    cluster, models = _registry(config)
    digest = servable.digest[:63]
    name = config.display_name or config.name
    parent = _known(cluster, models, name)
    entered, place_of = _version(cluster, models, parent, digest) if parent else ("", "")
    if not entered:
        shutil.copytree(servable.path / "saved_model", registration.path / "1")
        place_of = uri_of(registration.path)
        request = {"parent": cluster.parent, "parent_model": parent, "model": _model(config, name, place_of, digest)}
        doing(f"entering {name} into the Model Registry")
        operation = cluster.calling(lambda: models.upload_model(request, timeout=_CALL_SECONDS))
        made = cluster.calling(lambda: operation.result(timeout=_UPLOAD_SECONDS))
        entered = f"{made.model}@{made.model_version_id}"
    write_json(registration.path / "registration.json", {"model": entered, "artifact_uri": place_of})
    registration.properties |= {"model": entered, "label": digest, "summary": f"{name}: {entered}"}


def why_not_there(config: RegisterStage, registration: Registration) -> str:
    """Why a registration has to be repeated; empty where its version is there.

    Raises:
        UserError: Vertex AI does not answer.
    """
    cluster, models = _registry(config)
    parent = _known(cluster, models, config.display_name or config.name)
    entered, label = registration.properties.get("model"), str(registration.properties.get("label"))
    if parent and _version(cluster, models, parent, label)[0] == entered:
        return ""
    return f"{entered} is not there"


def _registry(config: RegisterStage) -> tuple[VertexCluster, Any]:
    """Vertex AI and its service of models: in one of its jobs, where the config says no place, the job's own."""
    place = Vertex(
        project=config.project or os.environ.get("CLOUD_ML_PROJECT_ID"),
        region=config.region or os.environ.get("CLOUD_ML_REGION"),
    )
    cluster = VertexCluster(place)
    return cluster, cluster.client("ModelServiceClient")


def _known(cluster: VertexCluster, models: Any, name: str) -> str:
    """The resource's name of the model that is called so; empty where there is none."""
    wanted = {"parent": cluster.parent, "filter": f'display_name="{name}"'}
    return next(
        (str(model.name) for model in cluster.calling(lambda: list(models.list_models(wanted, timeout=_CALL_SECONDS)))),
        "",
    )


def _version(cluster: VertexCluster, models: Any, model: str, digest: str) -> tuple[str, str]:
    """The version that was made of the same content, by an attempt before this one, say: its name, and what it is served from."""
    wanted = {"name": model, "filter": f'labels.{_DIGEST}="{digest}"'}
    found = cluster.calling(lambda: list(models.list_model_versions(wanted, timeout=_CALL_SECONDS)))
    same = (one for one in found if one.labels.get(_DIGEST) == digest)
    return next(((f"{model}@{one.version_id}", str(one.artifact_uri)) for one in same), ("", ""))


def _model(config: RegisterStage, name: str, artifact_uri: str, digest: str) -> dict[str, Any]:
    path = f"/v1/models/{config.name}"
    return {
        "display_name": name,
        "artifact_uri": artifact_uri,
        "labels": {_DIGEST: digest},
        "version_aliases": ["default"] if config.default else [],
        "encryption_spec": {"kms_key_name": config.encryption_key} if config.encryption_key else None,
        "container_spec": {
            "image_uri": config.image,
            "command": ["/usr/bin/tensorflow_model_server"],
            "args": [
                f"--rest_api_port={_PORT}",
                f"--model_name={config.name}",
                "--model_base_path=$(AIP_STORAGE_URI)",
            ],
            "ports": [{"container_port": _PORT}],
            "predict_route": f"{path}:predict",
            "health_route": path,
        },
    }
