"""What is compiled for clusters: written down whole, read from the signatures, and refused in one line.

Update: .venv/bin/python -m pytest tests/pipeline/test_compile.py --update_golden
"""

import dataclasses
import json
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from lmworks.configs.load import ConfigError, load
from lmworks.pipeline.graph import graph
from lmworks.pipeline.main import main
from lmworks.tfx import kubeflow, vertex
from lmworks.tfx.artifacts import Artifact, Model, Sequences
from lmworks.tfx.component import Input, Output, component
from lmworks.tfx.launch import stage_config
from lmworks.tfx.pipeline_spec import parameters, write
from tests.configs.test_golden import RECIPES
from tests.conftest import REPOSITORY

GOLDEN = Path(__file__).with_name("golden")
TINY = REPOSITORY / "configs" / "tiny.yaml"
BOTH = ["platform.train.cpu=4", "platform.train.memory=16Gi", "platform.train.environment={OMP_NUM_THREADS: 4}",
        "platform.train.retries=3", "platform.evaluate.cache=false"]  # fmt: skip
SETS = {
    "kubeflow": [
        *BOTH,
        "platform.train.gpu={type: nvidia.com/gpu, count: 2}",
        "platform.train.node_selector={nvidia.com/gpu.product: NVIDIA-L4}",
        "platform.train.tolerations=[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]",
        "platform.train.spot=gke",
        "platform.train.timeout_seconds=3600",
        "platform.train.volumes={/mnt/work: checkpoints}",
        "platform.train.state=/mnt/work/state",
        "platform.train.log_dir=/mnt/work/logs",
        "platform.export.secrets={HF_TOKEN: hub/token}",
    ],
    "vertex": [
        *BOTH,
        "platform.image=europe-docker.pkg.dev/project/repository/lmworks:0.1.0",
        "platform.train.gpu={type: NVIDIA_L4}",
        "platform.train.state=gs://bucket/state",
        "platform.train.log_dir=gs://bucket/logs",
        "platform.vertex.tensorboard=projects/1/locations/europe-west4/tensorboards/7",
        "platform.vertex.register_model={}",
    ],
}
TARGETS = {"kubeflow": kubeflow, "vertex": vertex}


def compiled(target: str, output: Path, nodes=None, sets=()) -> str:
    """The YAML of configs/tiny.yaml."""
    config = load(TINY, sets)
    write(nodes or graph(config), config.name, config.platform, TARGETS[target].TARGET, output)
    return output.read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_pipeline_is_what_is_written_down(target, request, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    output, golden = tmp_path / "tiny.yaml", GOLDEN / f"tiny.{target}.yaml"
    sets = [f"--set={one}" for one in SETS[target]]
    assert main(["compile", "--config=configs/tiny.yaml", f"--target={target}", f"--output={output}", *sets]) == 0
    if request.config.getoption("--update_golden"):
        golden.write_text(output.read_text())
    assert output.read_text() == golden.read_text(), "run this file with --update_golden if that is meant"


def test_vertex_gets_one_document_and_kubernetes_what_is_its_own(tmp_path):
    documents = list(yaml.safe_load_all(compiled("kubeflow", tmp_path / "k.yaml", sets=SETS["kubeflow"])))
    own = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(own) == {"exec-train", "exec-export"}  # also of a stage behind the gate
    assert own["exec-train"]["tolerations"][1]["key"] == "cloud.google.com/gke-spot"
    assert own["exec-export"]["secretAsEnv"][0]["secretName"] == "hub"
    assert len(list(yaml.safe_load_all(compiled("vertex", tmp_path / "v.yaml", sets=SETS["vertex"])))) == 1


def test_platform_is_in_no_stages_config():
    plain, asked = graph(load(TINY)), graph(load(TINY, SETS["kubeflow"]))
    assert [node.config for node in plain] == [node.config for node in asked]


def test_a_stage_that_reads_from_outside_is_not_cached(tmp_path):
    preset = ["model={preset: ./folder}", "preprocess.tokenizer={}"]
    for sets, expected in (((), {"ingest"}), (preset, {"ingest", "preprocess", "train"})):
        tasks = yaml.safe_load(compiled("vertex", tmp_path / "a.yaml", sets=sets))["root"]["dag"]["tasks"]
        assert {name for name, task in tasks.items() if not task["cachingOptions"].get("enableCache")} == expected


def test_a_changed_signature_shows_in_the_pipeline(tmp_path):
    class Notes(Artifact):
        """Another kind."""

    nodes = graph(load(TINY))
    made = nodes[2].component

    @component
    def train(
        config: made.config,
        sequences: Input[Sequences],
        start: Input[Model] | None,
        model: Output[Model],
        notes: Output[Notes],
    ) -> int:
        return 1

    nodes[2] = dataclasses.replace(nodes[2], component=train)
    before, after = (
        yaml.safe_load(compiled("vertex", tmp_path / "a.yaml", which))["components"]["comp-train"]
        for which in (None, nodes)
    )
    assert set(before["outputDefinitions"]["artifacts"]) == {"model", "logs"}
    assert set(after["outputDefinitions"]["artifacts"]) == {"model", "notes"}
    assert after["outputDefinitions"]["parameters"] == {"value": {"parameterType": "NUMBER_INTEGER"}}
    assert after["inputDefinitions"]["artifacts"]["start"]["isOptional"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_that_nobody_sets_change_nothing(recipe):
    for node in graph(load(REPOSITORY / f"configs/{recipe}.yaml")):
        keys = parameters(node.config)
        told = {"config": node.config.model_dump_json(exclude=set(keys)), **keys}
        assert stage_config(node.component, told) == node.config


def test_parameters_are_those_that_people_change():
    keys = {f"{node.name}.{key}" for node in graph(load(TINY)) for key in parameters(node.config)}
    assert {"ingest.train", "train.learning_rate", "train.epochs", "train.seed", "evaluate.thresholds"} <= keys


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("learning_rate", "-1", "train: 1 error in the config\n  learning_rate: -1: should be greater than 0"),
        ("learning_rate", "", "learning_rate: '' is null in YAML: write null, or quote"),
        ("learning_rate", "[1", "learning_rate: no valid YAML"),
        ("lerning_rate", "1", "lerning_rate: unknown key; did you mean learning_rate?"),
    ],
)
def test_a_bad_parameter_is_told_by_its_key(key, value, words):
    node = graph(load(TINY))[2]
    with pytest.raises(ConfigError) as caught:
        stage_config(node.component, {"config": node.config.model_dump_json(), key: value})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("target", "sets", "words"),
    [
        ("kubeflow", "gpu={type: A100}", "train.gpu.type: 'A100': Kubernetes knows nvidia.com/gpu, amd.com/gpu"),
        ("vertex", "gpu={type: nvidia.com/gpu}", "train.gpu.type: 'nvidia.com/gpu': Vertex AI knows NVIDIA_TESLA_T4"),
        ("vertex", "tolerations=[{operator: Exists}]", "train.tolerations: is for Kubernetes, and Vertex AI has none"),
        ("vertex", "volumes={/mnt: a}", "train.volumes: is for Kubernetes"),
        ("vertex", "secrets={HF_TOKEN: hub/token}", "train.secrets: is for Kubernetes"),
        ("vertex", "state=/mnt/state", "train.state: '/mnt/state': must be in a bucket, gs://"),
        ("kubeflow", "state=/mnt/state", "train.state: '/mnt/state': must lie on a volume, and mounted are none"),
        ("kubeflow", "log_dir=gs://bucket/logs", "train.log_dir: 'gs://bucket/logs': must lie on a volume"),
    ],
)
def test_what_a_cluster_does_not_have_is_one_line(target, sets, words, tmp_path, capfd):
    arguments = ["compile", f"--config={TINY}", f"--target={target}", f"--output={tmp_path / 'a.yaml'}"]
    assert main([*arguments, f"--set=platform.train.{sets}"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"  platform.{words}" in lines[1]
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output=a.yaml"], "--target is missing; it is one of kubeflow, vertex"),
        (["--target=mesos", "--output=a.yaml"], "one of <kubeflow|vertex>"),
        (["--target=kubeflow"], "--output=: must be FILE.yaml"),
        (["--target=kubeflow", "--output=a.txt"], "--output=a.txt: must be FILE.yaml"),
        (["--target=kubeflow", "--output=nowhere/a.yaml"], "there is no folder nowhere"),
    ],
)
def test_bad_usage(arguments, words, capfd):
    assert main(["compile", f"--config={TINY}", *arguments]) == 2
    assert words in capfd.readouterr().err


def test_kfp_that_is_not_installed(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "kfp", None)
    assert main(["compile", f"--config={TINY}", "--target=vertex", f"--output={tmp_path / 'a.yaml'}"]) == 1
    assert capfd.readouterr().err.splitlines() == [
        "lmworks compile: Vertex AI needs kfp, which is not installed: pip install 'lmworks[vertex]'"
    ]


def test_vertex_gpus_are_those_of_its_api():
    from google.cloud.aiplatform_v1.types import AcceleratorType

    real = {name for name in AcceleratorType.__members__ if name.startswith("NVIDIA")}
    assert real - set(vertex.GPUS) == {"NVIDIA_TESLA_K80"}  # no longer offered
    assert set(vertex.GPUS) <= real


def test_the_default_image_is_this_version():
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert load(TINY).platform.image == f"lmworks:{version}"


def test_resources_of_every_stage():
    assert {node.name for node in graph(load(TINY))} <= set(type(load(TINY).platform).model_fields)


def test_no_json_in_the_config_becomes_another_number(tmp_path):
    """A nested structure would turn whole numbers into floats."""
    tasks = yaml.safe_load(compiled("vertex", tmp_path / "a.yaml"))["root"]["dag"]["tasks"]
    for node in graph(load(TINY))[:4]:
        told = tasks[node.name]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]
        assert json.loads(told) == node.config.model_dump(mode="json", exclude=set(parameters(node.config)))
