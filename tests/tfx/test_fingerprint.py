import os
import time

import lmworks.tfx.launch
from lmworks.configs.schema import IngestStage
from lmworks.tfx import fingerprint


def test_code_is_what_was_loaded_without_configs():
    found = fingerprint.code("lmworks.tfx.launch", started=time.time())
    assert "lmworks.tfx.launch" in found
    assert "lmworks.tfx.artifacts" in found
    assert not [name for name in found if name.startswith("lmworks.configs") or name == "lmworks.tfx.local"]
    assert fingerprint.changed_code(found) == []
    assert fingerprint.changed_code({**found, "lmworks.tfx.launch": "another"}) == ["lmworks.tfx.launch"]


def test_a_file_that_changed_while_it_ran_is_never_a_hit():
    path = lmworks.tfx.launch.__file__
    found = fingerprint.code("lmworks.tfx.launch", started=os.stat(path).st_mtime - 1)
    assert "lmworks.tfx.launch" in fingerprint.changed_code(found)


def test_comments_and_docstrings_do_not_count(tmp_path):
    one, two, three = (tmp_path / name for name in ("1.py", "2.py", "3.py"))
    one.write_text('"""Doc."""\ndef f():\n    """Doc."""\n    return 1  # why\n')
    two.write_text("def f():\n    return 1\n")
    three.write_text("def f():\n    return 2\n")
    digests = [fingerprint._source_digest(str(path)) for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]


def test_external_files_count_by_content(tmp_path):
    path = tmp_path / "a.csv"
    config = IngestStage.model_validate({"task": "text_classification", "train": str(path)})
    absent = fingerprint.external(config)
    path.write_text("a")
    first = fingerprint.external(config)
    path.write_text("b")
    assert len({str(one) for one in (absent, first, fingerprint.external(config))}) == 3


def test_code_that_changes_while_the_runner_works_is_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("VALUE = 1\n")
    before = fingerprint._source_digest(str(path))
    draft = tmp_path / "draft.py"
    draft.write_text("VALUE = 2\n")
    os.utime(draft, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    draft.replace(path)
    assert fingerprint._source_digest(str(path)) != before
