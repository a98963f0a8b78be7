"""How many hosts run one component together, and which of them this is: read from what the cluster puts into the environment.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID     Kubeflow Trainer; the older JAXJob without `JAX_`
    CLUSTER_SPEC                                                   Vertex AI custom jobs
    TF_CONFIG                                                      TensorFlow's, set by several operators

The first host writes; the others compute with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from lmworks.configs.errors import UserError

_PORT = 12355
"""Of the coordinator, where the environment gives none that is free: a port in a cluster's description is another server's."""
_ROLES = ("chief", "master", "workerpool0", "worker", "workerpool1")
"""Of tasks that train, in their order; parameter servers and evaluators do not."""
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "COORDINATOR_ADDRESS", "CLUSTER_SPEC", "TF_CONFIG")


@dataclass(frozen=True)
class Host:
    """One of the processes that run a component together."""

    index: int = 0
    count: int = 1
    coordinator: str = ""
    """`address:port` of the first one; empty where there is one only."""


def this_host(environment: Mapping[str, str] = os.environ) -> Host:
    """What the environment says.

    Raises:
        UserError: a variable is set and makes no sense, naming it.
    """
    for prefix in ("JAX_", ""):
        if f"{prefix}COORDINATOR_ADDRESS" in environment and f"{prefix}NUM_PROCESSES" in environment:
            return _from_numbers(environment, prefix)
    for name in ("CLUSTER_SPEC", "TF_CONFIG"):
        if environment.get(name):
            return _from_description(name, environment[name])
    return Host()


def forget_others(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Takes what tells of other hosts out of the environment; the names of what was there."""
    found = [name for name in _VARIABLES if environment.get(name)]
    for name in found:
        del environment[name]
    return found


def _from_numbers(environment: Mapping[str, str], prefix: str) -> Host:
    try:
        count = int(environment[f"{prefix}NUM_PROCESSES"])
        index = int(environment[f"{prefix}PROCESS_ID"])
    except (KeyError, ValueError):
        raise UserError(
            f"{prefix}NUM_PROCESSES and {prefix}PROCESS_ID must be whole numbers where {prefix}COORDINATOR_ADDRESS is set"
        ) from None
    if not 0 <= index < count:
        raise UserError(f"{prefix}PROCESS_ID: {index} is not below {prefix}NUM_PROCESSES {count}")
    address = environment[f"{prefix}COORDINATOR_ADDRESS"]
    if ":" not in address:
        address = f"{address}:{environment.get(f'{prefix}COORDINATOR_PORT', _PORT)}"
    return Host(index, count, address) if count > 1 else Host()


def _from_description(name: str, text: str) -> Host:
    try:
        told: dict[str, Any] = json.loads(text)
        cluster, task = told.get("cluster") or {}, told.get("task") or {}
        tasks = [(role, index, address) for role in _ROLES for index, address in enumerate(cluster.get(role, ()))]
        places = [(role, index) for role, index, _ in tasks]
        if len(tasks) < 2:
            return Host()
        own = (task["type"], int(task["index"]))
        first = str(tasks[0][2])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name}: is no description of a cluster with its task: {text[:120]}") from None
    if own not in places:
        raise UserError(f"{name}: task {own[0]} {own[1]} is none of those that train: {', '.join(map(str, places))}")
    return Host(places.index(own), len(places), f"{first.rsplit(':', 1)[0]}:{_PORT}")
