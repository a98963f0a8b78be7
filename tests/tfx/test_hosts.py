"""Which host this is, as clusters tell it."""

import json

import pytest

from lmworks.configs.errors import UserError
from lmworks.tfx.hosts import Host, forget_others, this_host
from tests.tfx.stages import run

VERTEX = {
    "cluster": {"workerpool0": ["head-0:2222"], "workerpool1": ["worker-0:2222", "worker-1:2222"], "workerpool2": ["reduce-0:2222"]},
    "environment": "cloud",
    "task": {"type": "workerpool1", "index": 1},
}  # fmt: skip
TENSORFLOW = {
    "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]},
    "task": {"type": "worker", "index": 0},
}


def test_one_host():
    assert this_host({}) == Host(0, 1, "")
    assert (
        this_host(
            {"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}})}
        ).count
        == 1
    )
    assert this_host({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}).count == 1


@pytest.mark.parametrize("prefix", ["JAX_", ""])
def test_kubeflow_trainer(prefix):
    told = {f"{prefix}COORDINATOR_ADDRESS": "head:6666", f"{prefix}NUM_PROCESSES": "3", f"{prefix}PROCESS_ID": "2"}
    assert this_host(told) == Host(2, 3, "head:6666")
    apart = {**told, f"{prefix}COORDINATOR_ADDRESS": "head", f"{prefix}COORDINATOR_PORT": "6666"}
    assert this_host(apart) == Host(2, 3, "head:6666")


def test_vertex_and_tf_config():
    host = this_host({"CLUSTER_SPEC": json.dumps(VERTEX)})
    assert (host.index, host.count) == (2, 3)
    assert host.coordinator.startswith("head-0:")
    host = this_host({"TF_CONFIG": json.dumps(TENSORFLOW)})
    assert (host.index, host.count) == (1, 3)
    assert host.coordinator.startswith("a:")
    # What Kubeflow's trainer says is said for JAX, and comes first.
    numbers = {"JAX_COORDINATOR_ADDRESS": "x:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert this_host({"TF_CONFIG": json.dumps(TENSORFLOW), **numbers}) == Host(1, 2, "x:1")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"}, "must be whole numbers"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "2 is not below JAX_NUM_PROCESSES 2",
        ),
        ({"TF_CONFIG": "no json"}, "TF_CONFIG: is no description of a cluster"),
        ({"CLUSTER_SPEC": json.dumps({"cluster": VERTEX["cluster"]})}, "CLUSTER_SPEC: is no description"),
        (
            {"TF_CONFIG": json.dumps({**TENSORFLOW, "task": {"type": "ps", "index": 0}})},
            "task ps 0 is none of those that train",
        ),
    ],
)
def test_what_makes_no_sense_is_told_by_name(environment, words):
    with pytest.raises(UserError, match=words):
        this_host(environment)


def test_a_run_of_this_machine_knows_no_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps(TENSORFLOW))
    assert this_host().index == 1, "whose results nobody would write"
    runner = run(tmp_path, "one", "yes")
    assert (runner.folder / "tell" / "examples" / "word.txt").exists()
    assert "TF_CONFIG in the environment is ignored: a run is of this machine alone" in capsys.readouterr().err
    assert this_host() == Host()
    environment = {"JAX_COORDINATOR_ADDRESS": "a:1", "CLUSTER_SPEC": json.dumps(VERTEX), "TF_CONFIG": "", "HOME": "/"}
    assert forget_others(environment) == ["JAX_COORDINATOR_ADDRESS", "CLUSTER_SPEC"]
    assert environment == {"TF_CONFIG": "", "HOME": "/"}
