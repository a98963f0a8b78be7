"""Vertex AI Pipelines: what it has of resources."""

from __future__ import annotations

from collections.abc import Iterator

from lmworks.configs.platform import Platform, Resources
from lmworks.tfx import vertex_tensorboard
from lmworks.tfx.artifacts import Logs
from lmworks.tfx.cluster import lower_case
from lmworks.tfx.component import Component
from lmworks.tfx.pipeline_spec import Target

GPUS = (
    "NVIDIA_TESLA_T4", "NVIDIA_L4", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_P4", "NVIDIA_TESLA_A100",
    "NVIDIA_A100_80GB", "NVIDIA_H100_80GB", "NVIDIA_H100_MEGA_80GB", "NVIDIA_H200_141GB", "NVIDIA_B200", "NVIDIA_GB200",
    "NVIDIA_RTX_PRO_6000",
)  # fmt: skip
"""As Vertex AI's `AcceleratorType` names them."""
_KUBERNETES_ONLY = {
    "node_selector": "machines are picked by cpu, memory and gpu",
    "tolerations": "there are no taints",
    "spot": "a pipeline's tasks run on standard machines",
    "timeout_seconds": "a pipeline's task has no limit of its own",
    "secrets": "read them in the stage from Secret Manager, with the job's service account",
    "volumes": "there are no claims; name a bucket in state and log_dir, gs://…",
}


def _problems(asked: Resources) -> Iterator[tuple[str, str]]:
    for key, instead in _KUBERNETES_ONLY.items():
        if getattr(asked, key):
            yield key, f"is for Kubernetes, and Vertex AI has none: {instead}"
    if asked.gpu and asked.gpu.type not in GPUS:
        yield "gpu.type", f"{asked.gpu.type!r}: Vertex AI knows {', '.join(GPUS)}"
    for key in ("state", "log_dir"):
        folder = getattr(asked, key)
        if folder and not folder.startswith("gs://"):
            yield key, f"{folder!r}: must be in a bucket, gs://BUCKET/FOLDER"


def place_of(tensorboard: str, name: str) -> str:
    """Where a pipeline's curves go: an experiment of its name, in which its trainings stand side by side.

    Args:
        tensorboard: `projects/P/locations/L/tensorboards/T`.
        name: of the config.
    """
    return f"{tensorboard}/experiments/{lower_case(name)[:128]}"


def _environment(platform: Platform, name: str, component: Component) -> dict[str, str]:
    tensorboard = platform.vertex.tensorboard
    if tensorboard is None or Logs not in component.outputs.values():
        return {}
    return {vertex_tensorboard.ENVIRONMENT: place_of(tensorboard, name)}


TARGET = Target("Vertex AI", "vertex", _problems, environment=_environment)
