"""The section `platform`: where the stages run on a cluster, and what each of them is given there."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lmworks.configs.section import NotBlank, Positive, Section


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int | float)]
"""Text that YAML may have read as a number."""
_NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_SECRET_WORDS = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(_|$)", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")


class Gpu(Section):
    """Accelerators of one container."""

    type: str
    """As the target calls it: `nvidia.com/gpu` on Kubernetes, where `node_selector` picks the model; `NVIDIA_L4` on Vertex AI."""
    count: Positive = 1
    """Number of accelerators."""


class Toleration(Section):
    """A taint of Kubernetes nodes that does not keep this stage away."""

    key: str | None = None
    """Key of the taint; with `operator: Exists` it may be missing, which means all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint must have this `value`, or any."""
    value: Text | None = None
    """Value of the taint, for `operator: Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """All effects when not given."""
    seconds: Positive | None = None
    """NoExecute: how long the stage stays on such a node."""

    @model_validator(mode="after")
    def _whole(self) -> Toleration:
        if self.key is None and self.operator != "Exists":
            raise ValueError("needs a key, or operator: Exists for all taints")
        if self.value is not None and self.operator == "Exists":
            raise ValueError("operator Exists takes no value")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds belong to effect: NoExecute")
        return self


class Retries(Section):
    """How often and when a stage that failed is started again."""

    count: Annotated[int, Field(ge=0, le=10)]
    """Number of retries."""
    wait_seconds: Annotated[int, Field(ge=0)] = 30
    """Before the first retry."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """By which each further wait is longer."""
    longest_wait_seconds: Positive = 3600
    """Longest wait before a retry."""


def _retries(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _cores(value: str) -> str:
    if not re.fullmatch(r"(\d*\.)?\d+|\d+m", value):
        raise ValueError("must be a number of cores: 4, 0.5 or 500m")
    return value


def _bytes(value: str) -> str:
    if not re.fullmatch(r"\d+([KMGTPE]i?)?", value):
        raise ValueError("must be whole bytes with a unit: 16Gi, 16G or 512Mi")
    return value


class Resources(Section):
    """What one stage is given on a cluster. It is no part of the stage's config: changing it runs nothing again."""

    cpu: Annotated[Text, AfterValidator(_cores)] | None = None
    """Cores: `4`, `0.5` or `500m`."""
    memory: Annotated[Text, AfterValidator(_bytes)] | None = None
    """Bytes, with a unit: `16Gi`."""
    gpu: Gpu | None = None
    """Accelerators; none if absent."""
    node_selector: dict[str, Text] = {}
    """Kubernetes: labels that the node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Kubernetes: taints that do not keep the stage away."""
    spot: Literal["gke", "eks", "aks"] | None = None
    """Kubernetes: on spot machines of this cloud, by its node label and taint; give `retries` and `state` with it."""
    retries: Annotated[Retries, BeforeValidator(_retries, json_schema_input_type=int | Retries)] | None = None
    """How often the stage is started again when it failed: a number, or an object."""
    timeout_seconds: Positive | None = None
    """Kubernetes: after which the stage is ended."""
    environment: dict[str, Text] = {}
    """Variables of the container. They are written into the pipeline: nothing secret."""
    secrets: dict[str, str] = {}
    """Kubernetes: variables of the container whose values are secrets of the cluster, by `NAME/KEY`: `{HF_TOKEN: hub/token}`."""
    volumes: dict[str, str] = {}
    """Kubernetes: names of PersistentVolumeClaims by the absolute path where each is mounted: `{/mnt/state: checkpoints}`."""
    state: NotBlank | None = None
    """Folder for unfinished work (checkpoints), from which a retry and the same run submitted anew go on: on a mounted volume
    (Kubernetes) or in a bucket, `gs://…` (Vertex AI)."""
    log_dir: NotBlank | None = None
    """Folder for TensorBoard's events while the stage works, on a volume or in a bucket like `state`."""
    cache: bool | None = None
    """Whether the cluster may take an earlier result of the same image, config and inputs; when not given, where the stage
    reads nothing from outside the pipeline, whose content the cluster does not look at."""

    @model_validator(mode="after")
    def _sound(self) -> Resources:
        # None of these messages repeats a value, which may be a secret.
        for name, value in self.environment.items():
            if _SECRET_WORDS.search(name) or _PASSWORD_IN_URL.search(value):
                raise ValueError(
                    f"environment.{name}: looks like a secret, and would be written into the pipeline; name it in secrets: "
                    f"{{{name}: NAME/KEY}}"
                )
        for name, secret in self.secrets.items():
            if not re.fullmatch(rf"{_NAME}/[-._a-zA-Z0-9]+", secret):
                raise ValueError(
                    f"secrets.{name}: must be NAME/KEY of a secret of the cluster, never the secret itself"
                )
        for key in ("environment", "secrets"):
            for name in getattr(self, key):
                if not re.fullmatch(_VARIABLE, name):
                    raise ValueError(f"{key}.{name}: is no name of an environment variable")
        if both := self.environment.keys() & self.secrets.keys():
            raise ValueError(f"{', '.join(sorted(both))}: stands in environment and in secrets")
        for path, claim in self.volumes.items():
            if not path.startswith("/") or not re.fullmatch(_NAME, claim):
                raise ValueError(f"volumes: {path}: {claim}: must be an absolute path and the name of a claim")
        return self


def _url(value: str) -> str:
    if re.search(r"://[^/]*@", value):  # told without the value, which is secret
        raise ValueError(
            "must not hold a user or a password; set KFP_EXISTING_TOKEN in the environment, a token of yours"
        )
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", value):
        raise ValueError("must be http://… or https://…")
    return value.rstrip("/")


def _bucket(value: str) -> str:
    if not re.fullmatch(r"gs://[a-z0-9][-._a-z0-9]+[a-z0-9](/\S*)?", value):
        raise ValueError("must be in a bucket, gs://BUCKET/FOLDER")
    return value.rstrip("/")


def _resource(*kinds: str) -> AfterValidator:
    """Checks the full name of a resource of Google Cloud, `projects/P/locations/L/KIND/NAME`."""
    form = "/".join(f"{kind}/{kind.upper().rstrip('S')}" for kind in kinds)

    def check(value: str) -> str:
        if not re.fullmatch("/".join(rf"{kind}/[^/\s]+" for kind in kinds), value):
            raise ValueError(f"must be {form}")
        return value

    return AfterValidator(check)


class Kubeflow(Section):
    """Kubeflow Pipelines: which one, and what a run is called there. Credentials are found as kfp finds them."""

    host: Annotated[str, AfterValidator(_url)] | None = None
    """URL of Kubeflow Pipelines. When not given: KF_PIPELINES_ENDPOINT, then the cluster that this is a part of, then that
    of kubectl."""
    namespace: NotBlank | None = None
    """Of the user's profile, where one installation serves several; else that of `~/.config/kfp/context.json`."""
    experiment: NotBlank | None = None
    """Under which the runs are shown together; the config's name when not given."""
    pipeline_root: NotBlank | None = None
    """Where the artifacts go, `s3://BUCKET/FOLDER` for example; the installation's own when not given."""
    service_account: NotBlank | None = None
    """Kubernetes' service account of the stages; the installation's own when not given."""
    ca_file: NotBlank | None = None
    """Certificates of the authority that signed the server's, where the system does not know it."""


class Registry(Section):
    """How the servable is entered into Vertex AI's Model Registry."""

    image: str = "tensorflow/serving:2.21.0"
    """Container that serves it when it is deployed: TensorFlow Serving."""
    display_name: str | None = None
    """Of the model, of which each registration makes a version; the run's name when not given."""
    default: bool = True
    """Whether the new version becomes the one that is used when none is named."""


class Vertex(Section):
    """Vertex AI: where a run is made and as whom. Credentials are found as gcloud finds them."""

    project: NotBlank | None = None
    """Of Google Cloud; that of the credentials or of gcloud when not given."""
    region: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)+[0-9]+$")] | None = None
    """`europe-west4`, for example; GOOGLE_CLOUD_REGION or CLOUDSDK_COMPUTE_REGION when not given."""
    pipeline_root: Annotated[str, AfterValidator(_bucket)] | None = None
    """Where the artifacts go, `gs://BUCKET/FOLDER`; a run needs it."""
    service_account: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    """E-mail address of the account that the stages run as; the project's Compute Engine account when not given."""
    network: Annotated[str, _resource("projects", "global/networks")] | None = None
    """A network to which the stages are peered, `projects/NUMBER/global/networks/NAME`."""
    labels: dict[str, Text] = {}
    """Of the run, for bills and filters."""
    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,127}$")] | None = None
    """Vertex AI's experiment in which runs are compared; it is made where there is none."""
    encryption_key: Annotated[str, _resource("projects", "locations", "keyRings", "cryptoKeys")] | None = None
    """Cloud KMS key for all that a run makes, `projects/P/locations/L/keyRings/R/cryptoKeys/K`."""
    tensorboard: Annotated[str, _resource("projects", "locations", "tensorboards")] | None = None
    """Vertex AI TensorBoard that the training writes to while it works, `projects/P/locations/L/tensorboards/T`."""
    register_model: Registry | None = None
    """A last step that enters the servable into the Model Registry; `{}` for the defaults."""

    @model_validator(mode="after")
    def _labels(self) -> Vertex:
        for name, value in self.labels.items():
            if not re.fullmatch(r"[a-z][-_a-z0-9]{0,62}", name) or not re.fullmatch(r"[-_a-z0-9]{0,63}", value):
                raise ValueError(
                    f"labels.{name}: must be lower-case letters, digits, '-' and '_', at most 63, and begin with a letter"
                )
        return self


class Platform(Section):
    """Where the stages run when a pipeline is compiled for Kubeflow or Vertex AI; a local run does not read it."""

    image: NotBlank = "lmworks:0.1.0"
    """The container image of all stages, which has lmworks and what the config names by path. Vertex AI pulls from a registry:
    `REGION-docker.pkg.dev/PROJECT/REPOSITORY/lmworks:TAG`."""
    kubeflow: Kubeflow = Kubeflow()
    """Which Kubeflow Pipelines a run is submitted to, and what it is called there."""
    vertex: Vertex = Vertex()
    """Where on Vertex AI a run is made, and as whom."""
    ingest: Resources = Resources()
    """Resources of the stage `ingest`."""
    preprocess: Resources = Resources()
    """Resources of the stage `preprocess`."""
    train: Resources = Resources()
    """Resources of the stage `train`."""
    evaluate: Resources = Resources()
    """Resources of the stage `evaluate`."""
    export: Resources = Resources()
    """Resources of the stage `export`."""
    push: Resources = Resources()
    """Resources of the stage `push`."""
