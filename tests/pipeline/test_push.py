"""The stage that pushes a servable into a model repository, in a folder and in a bucket."""

import json
import shutil
import threading

import pytest
import yaml

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError, load
from lmworks.configs.schema import PushStage
from lmworks.pipeline.graph import graph
from lmworks.pipeline.push import repository
from lmworks.pipeline.push.component import push
from lmworks.pipeline.submit import compile_for
from lmworks.tfx import transfer
from lmworks.tfx.artifacts import Pushed, Servable, publish, read
from lmworks.tfx.component import Node
from lmworks.tfx.local import LocalRunner
from tests.conftest import REPOSITORY
from tests.pipeline.servable_stage import Word, make

TINY = REPOSITORY / "configs" / "tiny.yaml"


class Place:
    """A model repository, and what a test does to it."""

    def __init__(self, url, files, write, remove):
        self.url, self.files, self.write, self.remove = url, files, write, remove


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A repository in a folder, and one in S3: `files` gives all of it by name."""
    if request.param == "folder":
        root = tmp_path / "models"

        def write(name, content):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

        def files():
            return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

        return Place(str(root), files, write, lambda name: shutil.rmtree(root / name))
    s3 = request.getfixturevalue("s3")
    url = s3.url.replace("/runs", "/models")
    cut = len(url.removeprefix("s3://")) + 1

    def remove(name):
        s3.rm(f"{url}/{name}", recursive=True)

    def all_files():
        s3.invalidate_cache()
        return {name[cut:]: s3.cat_file(name) for name in s3.find(url)}

    return Place(url, all_files, lambda name, content: s3.pipe_file(f"{url}/{name}", content), remove)


def run(root, place, word="graph", name="reviews"):
    """Makes a servable and pushes it; status and reason of the push, and its artifact."""
    made = Node(make, Word(word=word))
    pushing = Node(push, PushStage(push_to=place.url, name=name), {"servable": made["servable"]})
    result = LocalRunner(root, name, {}, in_process=True).execute([made, pushing])[1]
    return result.status, result.why, read(Pushed, result.folder / "pushed")


def test_a_servable_becomes_the_next_version_with_labels_and_card(place, tmp_path):
    place.write("reviews/6/saved_model.pb", b"by somebody else")
    place.write("reviews/notes.txt", b"kept")
    status, _, pushed = run(tmp_path / "runs", place)
    assert (status, pushed.properties["version"]) == ("made", 7)
    assert pushed.properties["target"] == f"{place.url}/reviews/7"
    assert json.loads((pushed.path / "pushed.json").read_text())["target"] == f"{place.url}/reviews/7"
    found = place.files()
    new = {name.removeprefix("reviews/7/"): text for name, text in found.items() if name.startswith("reviews/7/")}
    assert new.pop("assets.extra/servable.json")
    assert new == {
        "saved_model.pb": b"graph",
        "variables/variables.index": b"index",
        "assets.extra/README.md": b"# card\n",
        "assets.extra/labels.json": b'["no", "yes"]',
    }
    assert sorted(name for name in found if not name.startswith("reviews/7/")) == [
        "reviews/6/saved_model.pb", "reviews/notes.txt",
    ]  # fmt: skip


def test_a_push_is_reused_only_if_its_target_is_whole_and_the_newest(place, tmp_path):
    root = tmp_path / "runs"
    assert run(root, place)[0] == "made"
    before = place.files()
    assert run(root, place)[:2] == ("cached", "nothing changed")
    assert place.files() == before

    place.remove("reviews/1")
    status, why, pushed = run(root, place)
    assert (status, why) == ("made", f"{place.url}/reviews/1 is not there, or not whole")
    assert place.files().keys() == before.keys()

    place.write("reviews/1/variables/variables.index", b"torn")
    status, why, pushed = run(root, place)
    assert (status, pushed.properties["version"]) == ("made", 2)
    assert run(root, place)[0] == "cached"

    place.write("reviews/3/saved_model.pb", b"by somebody else")
    assert run(root, place)[2].properties["version"] == 4
    assert run(root, place, word="another")[2].properties["version"] == 5
    status, why, pushed = run(root, place)  # what was asked for is what is served
    assert (status, pushed.properties["version"]) == ("made", 6)
    assert "is not the newest version; that is 5" in why


def test_damage_that_keeps_the_size_is_seen_on_this_machine(tmp_path):
    root = tmp_path / "models"
    place = Place(str(root), None, None, None)
    assert run(tmp_path / "runs", place)[2].properties["version"] == 1
    assert run(tmp_path / "runs", place)[0] == "cached"
    (root / "reviews/1/saved_model.pb").write_bytes(b"grape")
    status, why, pushed = run(tmp_path / "runs", place)
    assert (status, why) == ("made", f"{root}/reviews/1 is not there, or not whole")
    assert pushed.properties["version"] == 2
    assert (root / "reviews/2/saved_model.pb").read_bytes() == b"graph"
    # A version of an older lmworks is compared by sizes, as it was pushed.
    record = root / "reviews/2/assets.extra/servable.json"
    record.write_text(
        json.dumps({key: value for key, value in json.loads(record.read_text()).items() if key != "sha256"})
    )
    assert run(tmp_path / "runs", place)[0] == "cached"


def test_the_same_content_is_not_pushed_twice(place, tmp_path):
    assert run(tmp_path / "runs", place)[2].properties["version"] == 1
    before = place.files()
    status, _, pushed = run(tmp_path / "others", place)  # of another root, say
    assert (status, pushed.properties["version"]) == ("made", 1)
    assert pushed.properties["summary"].endswith("/reviews/1 is the same already")
    assert place.files() == before


def servable(folder):
    folder.mkdir(parents=True)
    made = Servable(folder)
    make(config=Word(word=folder.name), servable=made)
    publish(made, "servable", {"id": "make/1"})
    return read(Servable, folder)


def test_two_pushes_at_once_get_two_versions(place, tmp_path):
    models = [servable(tmp_path / "made" / str(number)) for number in range(4)]
    versions = []

    def work(model):
        folder = tmp_path / "pushed" / model.path.name
        folder.mkdir(parents=True)
        pushed = Pushed(folder)
        push(config=PushStage(push_to=place.url, name="reviews"), servable=model, pushed=pushed)
        versions.append((pushed.properties["version"], model.path.name))

    threads = [threading.Thread(target=work, args=[model]) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({version for version, _ in versions}) == 4
    found = place.files()
    for version, word in versions:
        assert found[f"reviews/{version}/saved_model.pb"] == word.encode()
    assert not [name for name in found if "claims" in name or "draft" in name]


def test_what_a_store_has_no_call_for_is_not_tried_again(capfd):
    store = transfer.Store("data://x", transfer.Screen(), "export.push_to")
    with pytest.raises(UserError, match="data://x/a"):
        store.remove(["a"])
    assert "once more" not in capfd.readouterr().err


def test_in_a_bucket_the_graph_comes_last_and_a_fault_leaves_nothing(s3, tmp_path, monkeypatch):
    sent = []
    put = type(s3)._put_file

    async def note(self, local, name, **options):
        if name.endswith("saved_model.pb") and len(sent) > 20:
            raise PermissionError("not here")
        sent.append(name.rpartition("/1/")[2])
        return await put(self, local, name, **options)

    monkeypatch.setattr(type(s3), "_put_file", note)
    url = s3.url.replace("/runs", "/models")
    push_to = {"push_to": url, "name": "reviews"}
    (tmp_path / "a").mkdir()
    push(config=PushStage(**push_to), servable=servable(tmp_path / "made"), pushed=Pushed(tmp_path / "a"))
    assert len(sent) == 5
    assert sent[-1] == "saved_model.pb"
    before = s3.find(url)
    sent += [""] * 20
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="not here"):
        push(config=PushStage(**push_to), servable=servable(tmp_path / "other"), pushed=Pushed(tmp_path / "b"))
    s3.invalidate_cache()
    assert s3.find(url) == before


def test_a_store_that_cannot_be_written_is_told(tmp_path, s3):
    (tmp_path / "a").mkdir()
    config = PushStage(push_to="s3://no-such-bucket/models", name="reviews")
    with pytest.raises(UserError, match="s3://no-such-bucket/models/reviews"):
        push(config=config, servable=servable(tmp_path / "made"), pushed=Pushed(tmp_path / "a"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere://models", "export.push_to.*: nowhere:// is of no store that files can be written to"),
        ("https://example.com/models", "export.push_to.*: https:// is of no store that files can be written to"),
        *(
            (f"{scheme}://models", f"export.push_to.*: {scheme}:// is of no store that files can be written to")
            for scheme in ("memory", "data", "ftp", "hf", "github", "zip", "simplecache", "local")
        ),
        (
            "s3://key:very-secret@bucket/models",
            "export: push_to: a URL must not hold a user's password or a key; set AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_a_target_is_checked_before_any_work(value, words):
    with pytest.raises(ConfigError, match=words) as told:
        load(TINY, [f"export.push_to={value}"])
    assert "very-secret" not in str(told.value)


def test_the_runs_name_and_the_gate(tmp_path):
    plain, asked = graph(load(TINY)), graph(load(TINY, [f"export.push_to={tmp_path}"]), run="friday")
    assert [node.config for node in asked[:5]] == [node.config for node in plain]  # nothing is rebuilt for it
    assert [node.name for node in asked[5:]] == ["push"]
    assert asked[5].config == PushStage(push_to=str(tmp_path), name="friday")
    assert asked[5].when == "evaluate"
    assert graph(load(TINY, [f"export.push_to={tmp_path}"]))[5].config.name == "tiny"
    assert len(graph(load(TINY, [f"export.push_to={tmp_path}"]), until="export")) == 5


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_cluster_pushes_behind_the_gate_and_never_takes_an_earlier_push_for_it(target, tmp_path):
    output = tmp_path / "pipeline.yaml"
    sets = ["export.push_to=s3://bucket/models", "platform.push.environment={AWS_REGION: eu-west-1}"]
    compile_for(target, load(TINY, sets), output, run="friday")
    whole, *_ = yaml.safe_load_all(output.read_text())
    (gate,) = [part for name, part in whole["components"].items() if name.startswith("comp-condition")]
    task = gate["dag"]["tasks"]["push"]
    assert not task["cachingOptions"].get("enableCache")
    assert gate["dag"]["tasks"]["export"]["cachingOptions"]["enableCache"]
    config = json.loads(task["inputs"]["parameters"]["config"]["runtimeValue"]["constant"])
    assert config == {"push_to": "s3://bucket/models", "name": "friday"}
    assert task["dependentTasks"] == ["export"]


def test_what_is_pushed_is_what_tensorflow_loads(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.answer = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None])])
    made = Servable(tmp_path / "made")
    tf.saved_model.save(module, str(made.path / "saved_model"), signatures=module.answer)
    publish(made, "servable", {"id": "make/1"})
    (tmp_path / "a").mkdir()
    push(
        config=PushStage(push_to=str(tmp_path / "models"), name="plus"),
        servable=read(Servable, made.path),
        pushed=Pushed(tmp_path / "a"),
    )
    served = tf.saved_model.load(str(tmp_path / "models" / "plus" / "1")).signatures["serving_default"]
    assert served(tf.constant([1.0]))["output_0"].numpy().tolist() == [2.0]


def test_a_servable_without_a_saved_model(tmp_path):
    (tmp_path / "a").mkdir()
    publish(Servable(tmp_path / "a"), "servable", {"id": "make/1"})
    with pytest.raises(UserError, match=r"export\.formats must name it to push a model"):
        push(
            config=PushStage(push_to=str(tmp_path), name="x"),
            servable=read(Servable, tmp_path / "a"),
            pushed=Pushed(tmp_path / "b"),
        )


def test_retries_do_not_take_an_existing_claim_for_a_fault(s3):
    store = transfer.Store(s3.url, transfer.Screen(), "export.push_to")
    assert store.create(repository._claim(1), b"")
    assert not store.create(repository._claim(1), b"")


@pytest.mark.parametrize(
    "error", [TypeError("mode"), OSError("A header that you provided implies what is not implemented")]
)
def test_a_store_without_exclusive_writes_is_asked_before(s3, monkeypatch, error):
    put = type(s3)._pipe_file

    async def refuse(self, path, data, mode="overwrite", **options):
        if mode == "create":
            raise error
        return await put(self, path, data, **options)

    monkeypatch.setattr(type(s3), "_pipe_file", refuse)
    store = transfer.Store(s3.url, transfer.Screen(), "export.push_to")
    assert store.create(repository._claim(1), b"")
    assert not store.create(repository._claim(1), b"")
