"""The container image: its locks, what goes to the builder, and the whole of it, built in a clean root where no Docker is."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lmworks.configs.schema import Platform
from tests.conftest import REPOSITORY
from tests.tfx.test_packages import wheel

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
IMAGE = Platform().image
RECIPES = "/opt/lmworks/lib/python3.11/site-packages/lmworks/configs"
HOME = "/home/lmworks"
OPENSHIFT = "1000620000:0"
INGESTED = {"examples", "statistics"}
needs_buildah = pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed")


def pins(name: str) -> dict[str, set[str]]:
    """Versions of every package in a lock, without their markers."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9-]+)==([^ ]+)", (REPOSITORY / name).read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def names(extra: str) -> set[str]:
    requirements = PROJECT["optional-dependencies"][extra]
    return {re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() for requirement in requirements}


def test_image_has_the_versions_that_are_tested():
    tested, cpu, gpu = (pins(f"requirements{kind}.lock") for kind in ("", "-cpu", "-gpu"))
    shared = cpu.keys() & tested.keys()
    assert {name: cpu[name] for name in shared} == {name: tested[name] for name in shared}
    assert {name: gpu[name] for name in cpu} == cpu
    assert {"nvidia-cudnn-cu12", "jax-cuda12-plugin"} <= gpu.keys() - cpu.keys()
    assert {"s3fs", "gcsfs", "jax", "google-cloud-aiplatform", "pip"} <= cpu.keys()


def test_image_has_no_developer_tools():
    tools = names("dev") | names("kubeflow")
    assert {"ruff", "kfp"} <= tools
    # TensorFlow needs setuptools.
    assert tools & pins("requirements-gpu.lock").keys() == {"pip", "setuptools"}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cpu.lock", "requirements-gpu.lock"])
def test_locks_are_hashed_and_name_no_index(name):
    text = (REPOSITORY / name).read_text()
    assert "://" not in text
    assert all(line.endswith("\\") for line in text.splitlines() if re.match(r"[a-z0-9-]+==", line))


def make_image(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "image", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False, **options
    )


def test_make_image_builds_what_a_config_names_by_default():
    assert f"docker build --tag {IMAGE} --build-arg ACCELERATOR=cpu " in make_image("--dry-run").stdout
    gpu = make_image("--dry-run", "ACCELERATOR=gpu").stdout
    assert f"docker build --tag {IMAGE}-gpu --build-arg ACCELERATOR=gpu " in gpu
    assert IMAGE.removeprefix("lmworks:") == PROJECT["version"]
    assert f"--tag {IMAGE} ." in DOCKERFILE
    assert f"FROM {IMAGE}\n" in DOCKERFILE


def test_make_image_says_that_there_is_no_docker():
    done = make_image("DOCKER=false")
    assert done.returncode == 2
    assert done.stderr.startswith("make image: 'false info' gets no answer; start Docker")


def test_dockerfile_passes_its_linter():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not hadolint:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def buildah(*arguments: object, **options) -> str:
    done = subprocess.run(["buildah", *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """buildah with images of its own, which are gone after the test; no daemon, no namespaces."""
    folder = tmp_path_factory.mktemp("images")
    settings = folder / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(settings))
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        yield folder
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
    shutil.rmtree(folder)


@needs_buildah
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_but_sources_goes_to_the_builder(store, tmp_path):
    wanted = {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements-cpu.lock",
        "tfx/launch.py",
        "configs/tiny/reviews.csv",
    }
    unwanted = {".git/config", ".env", "tfx/.env", "key.json", ".venv/bin/python", "runs/a/run.json", "build/a", "tests/a.py",
                "tfx/__pycache__/a.pyc", ".mypy_cache/a", "requirements.lock"}  # fmt: skip
    for name in wanted | unwanted:
        path = tmp_path / "context" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "all.Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    ignore = f"--ignorefile={REPOSITORY / '.dockerignore'}"
    buildah("build", "--tag=context", ignore, f"--file={tmp_path}/all.Dockerfile", tmp_path / "context")
    container = buildah("from", "context")
    root = Path(buildah("mount", container))
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == wanted
    buildah("rm", container)


@pytest.fixture(scope="module")
def image(store) -> str:
    """The image by `make image`, on the base image's Debian with that Debian's own Python, plus a user's own image."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        pytest.skip("needs root and debootstrap")
    base, release = re.search(r"^ARG BASE=python:(3\.\d+)\.\d+-slim-(\w+)$", DOCKERFILE, re.MULTILINE).groups()
    root = store / "base"
    packages = "--include=ca-certificates,netbase,tzdata,python3,python3-venv"
    subprocess.run(["debootstrap", "--variant=minbase", packages, release, root], check=True, stdout=subprocess.DEVNULL)
    assert (root / f"usr/bin/python{base}").exists()
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for path in (root / "usr/lib").rglob("*.pyc"):  # the official image has none
        path.unlink()
    settings = pip_settings()
    if certificates := settings.get("cert"):
        shutil.copyfile(certificates, root / "etc/ssl/certs/ca-certificates.crt")
        settings["cert"] = "/etc/ssl/certs/ca-certificates.crt"
    (store / "pip.conf").write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())]))
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    buildah("commit", "--quiet", container, "base")
    buildah("rm", container)
    shutil.rmtree(root)
    done = make_image("DOCKER=buildah", "BASE=localhost/base", f"PIP_CONF={store}/pip.conf")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (store / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY reviews.csv configs/tiny/\n")
    shutil.copyfile(REPOSITORY / "configs/tiny/reviews.csv", store / "reviews.csv")
    buildah("build", "--tag=own", f"--file={store}/Dockerfile", store)
    return "own"


def pip_settings() -> dict[str, str]:
    """This machine's way to its package index."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = re.findall(
        r"^(?:global|:env:)\.(cert|index-url|proxy|trusted-host|timeout)='(.*)'$", told.stdout, re.MULTILINE
    )
    return dict(found)


def inside(image: str, *command: str, user: str = "", mount: str = "", **environment: str) -> str:
    """Runs a command in a new container; what it printed."""
    container = buildah("from", image)
    options = [f"--env={name}={value}" for name, value in environment.items()]
    options += [f"--user={user}"] * bool(user) + [f"--volume={mount}"] * bool(mount)
    try:
        return buildah("run", *options, container, "--", *command)
    finally:
        buildah("rm", container)


@pytest.mark.slow
@needs_buildah
def test_image_runs_every_stage_as_any_user(image):
    told = inside(image, "sh", "-c", "id -u; id -g; pwd; echo $HOME $LD_LIBRARY_PATH")
    assert told.split() == ["10001", "0", HOME, HOME, "/usr/local/nvidia/lib64"]
    for user in ("", OPENSHIFT):
        assert inside(image, "lmworks", "run", f"--config={RECIPES}/tiny.yaml", user=user).endswith("runs/tiny")


@pytest.mark.slow
@needs_buildah
@pytest.mark.parametrize(("user", "environment"), [("", {}), (OPENSHIFT, {}), ("5000:5000", {"HOME": "/tmp"})])
def test_image_runs_a_component_as_kubeflow_does(image, tmp_path, user, environment):
    tmp_path.chmod(0o777)
    outputs = {name: {"artifacts": [{"name": name, "uri": f"minio://bucket/{name}"}]} for name in INGESTED}
    config = {"task": "text_classification", "train": f"{HOME}/configs/tiny/reviews.csv"}
    asked = {"artifacts": outputs, "outputFile": "/minio/bucket/executor_output.json"}
    given = json.dumps({"inputs": {"parameterValues": {"config": json.dumps(config)}}, "outputs": asked})
    component = "--component=lmworks.pipeline.ingest.component:ingest"
    command = ["python", "-m", "lmworks.tfx.launch", component, "--executor_input", given]
    mount = f"{tmp_path}:/minio"
    inside(image, "sh", "-c", 'cd / && exec "$@"', "sh", *command, user=user, mount=mount, **environment)
    assert (tmp_path / "bucket/examples/artifact.json").exists()
    answer = json.loads((tmp_path / "bucket/executor_output.json").read_text())
    assert set(answer["artifacts"]) == INGESTED


@pytest.mark.slow
@needs_buildah
def test_image_has_what_stages_need_and_no_secret(image, tmp_path):
    tmp_path.chmod(0o755)
    digest = wheel(tmp_path, {"thing/a.txt": "hello"})
    code = f"""
import gcsfs, google.cloud.aiplatform, jax, matplotlib, s3fs
from lmworks.tfx.packages import fetch
print(matplotlib.get_cachedir())
print(fetch("thing==1.0", "{digest}", "thing/a.txt").read_text())
"""
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/index"}
    told = inside(image, "python", "-c", code, user=OPENSHIFT, mount=f"{tmp_path}:/index", **index)
    assert told.splitlines() == [f"{HOME}/.cache/matplotlib", "hello"]
    assert inside(image, "find", "/", "-xdev", "-name", "pip.conf", user="0") == ""
