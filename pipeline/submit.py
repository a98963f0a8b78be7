"""From a config to a run on a cluster: compiled, submitted, watched."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmworks.configs.load import ConfigError
from lmworks.configs.schema import Config
from lmworks.configs.url_secrets import credentials_in_query, masked_url
from lmworks.pipeline.graph import graph
from lmworks.tfx import cluster, kubeflow, pipeline_spec, vertex
from lmworks.tfx.component import Node
from lmworks.tfx.screen import Screen

TARGETS = {"kubeflow": kubeflow.TARGET, "vertex": vertex.TARGET}


def compile_for(target: str, config: Config, output: Path, until: str | None = None, run: str = "") -> list[Node]:
    """Writes the pipeline as one kind of cluster reads it.

    Args:
        target: one of `TARGETS`.
        config: of the run.
        output: the YAML file.
        until: the last stage; all when not given.
        run: name of the run; the config's when not given.

    Returns:
        The stages.

    Raises:
        ConfigError: the cluster does not have what `platform` asks.
    """
    _check_queries(target, config)
    nodes = graph(config, until, on_vertex=target == "vertex", run=run)
    pipeline_spec.write(nodes, config.name, config.platform, TARGETS[target], output)
    return nodes


def _check_queries(target: str, config: Config) -> None:
    """Refuses signatures and tokens in URLs: the pipeline needs usable URLs, and all who see the cluster's runs read it.

    Raises:
        ConfigError: naming all such sources.
    """
    fix = (
        "name a variable in the query's place, https://HOST/FILE?$QUERY, and set platform.ingest.secrets: {QUERY: NAME/KEY}"
        if target == "kubeflow"
        else "read the file from a bucket, gs://…, with the job's service account"
    )
    lines = [
        f"ingest.{key}.path: {masked_url(url)}: its query holds {', '.join(names)}, and would be written into the pipeline; {fix}"
        for key, source in config.ingest.sources().items()
        for url in source.path
        if (names := credentials_in_query(url))
    ]
    if lines:
        raise ConfigError("\n  ".join([f"{len(lines)} of ingest's URLs hold a secret", *lines]))


def submit(target: str, config: Config, name: str, until: str | None = None) -> tuple[cluster.Run, list[Node]]:
    """Starts a run.

    Args:
        target: one of `TARGETS`.
        config: of the run.
        name: of the run, to which the time is added.
        until: the last stage; all when not given.

    Returns:
        The run, and its stages.

    Raises:
        ConfigError: `platform` does not say enough, or something that the cluster does not have.
        UserError: nobody is logged in, or a package is missing.
        Fault: the cluster does not answer, or does not take it.
    """
    with tempfile.TemporaryDirectory() as folder:
        place, package, nodes = _prepare(target, config, name, until, Path(folder))
        return place.submit(str(package), name), nodes


def schedule(target: str, config: Config, name: str, cron: str, until: str | None = None) -> str:
    """Starts runs again and again; see `submit`, `cluster.cron_of` and `cluster.Cluster.schedule`.

    Returns:
        A link to the schedule's page.
    """
    when = cluster.cron_of(cron)
    with tempfile.TemporaryDirectory() as folder:
        place, package, _ = _prepare(target, config, name, until, Path(folder))
        return place.schedule(str(package), name, when)


def _prepare(
    target: str, config: Config, name: str, until: str | None, folder: Path
) -> tuple[cluster.Cluster, Path, list[Node]]:
    """The cluster, and the compiled pipeline; what is wrong with the config is told before the cluster is asked."""
    package = folder / "pipeline.yaml"
    # Imported here: each needs its own client.
    if target == "kubeflow":
        from lmworks.tfx.kubeflow_client import KubeflowCluster

        nodes = compile_for(target, config, package, until, name)
        return KubeflowCluster(config.platform.kubeflow, config.name), package, nodes
    from lmworks.tfx.vertex_client import VertexCluster, in_place

    if "/" not in config.platform.image:
        raise ConfigError(
            f"platform.image: {config.platform.image!r}: Vertex AI pulls it from a registry, "
            "REGION-docker.pkg.dev/PROJECT/REPOSITORY/lmworks:TAG; make image builds it"
        )
    place = in_place(config.platform.vertex)
    config = config.model_copy(update={"platform": config.platform.model_copy(update={"vertex": place})})
    nodes = compile_for(target, config, package, until, name)
    return VertexCluster(place), package, nodes


def watch(run: cluster.Run, stages: Sequence[Node], verbose: bool) -> bool:
    """Shows a run until its end; see `cluster.follow`. Ctrl-C leaves it going on, or cancels it where somebody says so.

    Raises:
        KeyboardInterrupt: with what became of the run.
        UserError: it failed or was cancelled.
    """
    screen = Screen()
    try:
        gated = [node.name for node in stages if node.when]
        return cluster.follow(run, [node.name for node in stages], screen, verbose, gated)
    except KeyboardInterrupt:
        screen.clear()
        answer = ""
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            answer = input("cancel the run on the cluster? [y/N] ") if sys.stdin.isatty() else ""
        if answer.strip().lower() in ("y", "yes"):
            run.cancel()
            raise KeyboardInterrupt(f"the run is being cancelled: {run.link}") from None
        raise KeyboardInterrupt(f"the run goes on: {run.link}") from None
