"""Kubeflow Pipelines: what its clusters have of resources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from lmworks.configs.platform import Resources
from lmworks.tfx.launch import SECRETS_ENVIRONMENT
from lmworks.tfx.pipeline_spec import Target

GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/xe", "gpu.intel.com/i915", "habana.ai/gaudi")
"""Extended resources of the device plugins; beside them NVIDIA's parts of a GPU, `nvidia.com/mig-1g.10gb`."""
_PART_OF_GPU = re.compile(r"nvidia\.com/mig-\d+g\.\d+gb(\.me)?")
_SPOT = {
    "gke": ("cloud.google.com/gke-spot", "true"),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
}
"""By cloud: key and value of the label of its spot nodes, and of the taint that some of them have."""


def _problems(asked: Resources) -> Iterator[tuple[str, str]]:
    if asked.gpu and asked.gpu.type not in GPUS and not _PART_OF_GPU.fullmatch(asked.gpu.type):
        known = ", ".join(GPUS)
        yield "gpu.type", f"{asked.gpu.type!r}: Kubernetes knows {known}; node_selector picks the model"
    for key in ("state", "log_dir"):
        folder = getattr(asked, key)
        if folder and not any(PurePosixPath(folder).is_relative_to(path) for path in asked.volumes):
            mounted = ", ".join(asked.volumes) or "none"
            yield (
                key,
                f"{folder!r}: must lie on a volume, and mounted are {mounted}; mount one with volumes: {{PATH: CLAIM}}",
            )


def _configure(task: Any, asked: Resources) -> None:
    from kfp import kubernetes

    for name, secret in asked.secrets.items():
        secret_name, _, key = secret.partition("/")
        # Optional: else Kubernetes waits for a missing one for ever, and nobody is told. The stage tells.
        kubernetes.use_secret_as_env(task, secret_name, {key: name}, optional=True)
    if asked.secrets:
        task.set_env_variable(SECRETS_ENVIRONMENT, json.dumps(asked.secrets))
    for path, claim in asked.volumes.items():
        kubernetes.mount_pvc(task, claim, path)
    for label, value in asked.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for one in asked.tolerations:
        kubernetes.add_toleration(task, one.key, one.operator, one.value, one.effect, one.seconds)
    if asked.spot:
        label, value = _SPOT[asked.spot]
        kubernetes.add_node_selector(task, label, value)
        kubernetes.add_toleration(task, label, "Equal", value, "NoSchedule")
    if asked.timeout_seconds:
        kubernetes.set_timeout(task, asked.timeout_seconds)


TARGET = Target("Kubeflow", "kubeflow", _problems, _configure)
