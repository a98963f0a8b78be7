"""What may be named in `train.callbacks`: nothing is called that is not known to be a callback."""

import sys
from pathlib import Path

import keras
import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.callback_source import why_no_callback
from lmworks.pipeline.train.callbacks import callbacks_of, makers_of

MODULE = """
import os
from pathlib import Path

import keras
from keras.callbacks import Callback as Imported

class Watch(keras.callbacks.Callback):
    pass

class Optional(Watch):
    def __init__(self, every=5, *, name="x"):
        super().__init__()

class Needy(Watch):
    def __init__(self, every, *, name):
        super().__init__()

class Plain:
    def __init__(self):
        Path("called").touch()

class PlainBelow(Plain):
    pass

def make() -> keras.callbacks.Callback:
    return Watch()

def make_later() -> "Watch":
    return Watch()

def make_needy(every) -> Watch:
    return Watch()

def unsaid():
    Path("called").touch()
    return Watch()

def of_something_else() -> int:
    Path("called").touch()

def of_nothing_known() -> "Nowhere":
    Path("called").touch()

async def later() -> Watch:
    Path("called").touch()

class Called:
    def __call__(self) -> keras.callbacks.Callback:
        Path("called").touch()

called = Called()
lambda_of = lambda: Path("called").touch()
alias = Watch
if os.name:
    class Conditional(Watch):
        pass
"""
FILES = {
    "ours.py": MODULE,
    "package/__init__.py": "",
    "package/inner.py": "from ours import *\nfrom ours import Watch as Renamed",
    "broken.py": "class Watch(:\n",
    "failing.py": "import keras\nraise SystemError('no display')\nclass Watch(keras.callbacks.Callback): pass",
    "calling.py": "import logging, sys, keras\nlogging.basicConfig()\nprint()\nsys.path.append('x')\n"
    "class Watch(keras.callbacks.Callback): pass\ndef later():\n    global Late\n    Late = Watch\nlater()",
    "binding.py": "import keras\nglobals()['Watch'] = keras.callbacks.TerminateOnNaN",
    "lacking.py": "import no_such_package\nimport keras\nclass Watch(keras.callbacks.Callback): pass",
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("ours", "package", "package.inner", "broken", "failing", "lacking", "calling", "binding"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "entry",
    ["ours:Watch", "ours:Optional", "ours:make", "ours:make_later", "ours:alias", "ours:Conditional", "ours:Imported",
     "calling:Watch", "calling:Late", "binding:Watch",
     "package.inner:Watch", "package.inner:Renamed", "keras.callbacks:TerminateOnNaN"],
)  # fmt: skip
def test_a_callback_is_made(entry, modules):
    assert why_no_callback(entry) is None
    (made,) = callbacks_of([entry], keras.Sequential()).callbacks
    assert isinstance(made, keras.callbacks.Callback)


SOURCE_SAYS = [
    ("nowhere:Watch", "there is no module 'nowhere'"),
    ("package.nowhere:Watch", "there is no module 'package.nowhere'"),
    ("ours.inner:Watch", "there is no module 'ours.inner'"),
    ("ours:Wach", "defines no Wach; did you mean ours:Watch?"),
    ("calling:Wach", "defines no Wach; did you mean calling:Watch?"),
    ("os:abort", "is of Python's standard library"),
    ("sys:exit", "is of Python's standard library"),
    ("random:x", "is of Python's standard library"),
    ("concurrent.futures:Future", "is of Python's standard library"),
    ("broken:Watch", "broken.py:1: invalid syntax"),
    ("ours:Plain", "is a class without a base"),
    ("ours:Needy", "must be callable without arguments, and needs every, name"),
    ("ours:make_needy", "must be callable without arguments, and needs every"),
    ("ours:unsaid", "does not say what it returns"),
    ("ours:later", "does not say what it returns"),
]


@pytest.mark.parametrize(("entry", "words"), SOURCE_SAYS)
def test_the_source_tells_before_a_run(entry, words, modules):
    assert words in why_no_callback(entry)
    assert "ours" not in sys.modules, "nothing is imported for it"
    with pytest.raises(UserError, match=rf"train\.callbacks: {entry}: "):
        makers_of([entry])
    assert not Path("called").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("os:abort", "is a builtin_function_or_method; a subclass of keras"),
        ("sys:exit", "is a builtin_function_or_method"),
        ("os:_exit", "is a builtin_function_or_method"),
        ("builtins:dict", "is no callback class"),
        ("subprocess:Popen", "is no callback class"),
        ("keras.callbacks:NoSuch", "cannot be imported"),
        ("binding:Wach", "cannot be imported: .*; did you mean binding:Watch?"),
        ("keras.callbacks:ModelCheckpoint", "must be callable without arguments"),
        ("ours:PlainBelow", "is no callback class"),
        ("ours:of_something_else", "is a function"),
        ("ours:of_nothing_known", "is a function"),
        ("ours:called", "is a Called"),
        ("ours:lambda_of", "is a function"),
        ("ours:os", "is a module"),
        ("package.inner:Nothing", "cannot be imported"),
        ("failing:Watch", "cannot be imported: no display"),
        ("lacking:Watch", "cannot be imported: No module named 'no_such_package'"),
    ],
)
def test_nothing_else_is_called(entry, words, modules):
    with pytest.raises(UserError, match=rf"train\.callbacks: {entry}: {words}"):
        callbacks_of([entry], keras.Sequential())
    assert not Path("called").exists()


def test_a_function_that_lies_is_told(modules):
    Path("lying.py").write_text("import keras\ndef make() -> keras.callbacks.Callback: return 5\n")
    with pytest.raises(UserError, match="lying:make: gives int, and a keras"):
        callbacks_of(["lying:make"], keras.Sequential())
