import pytest

from lmworks.configs.schema import Export, Section
from lmworks.tfx.artifacts import Examples, Model, Sequences
from lmworks.tfx.component import Input, Node, Output, check, component


class Empty(Section):
    pass


def test_signature_is_the_specification():
    @component
    def work(config: Export, a: Input[Examples], b: Input[Model] | None, c: Output[Sequences]) -> bool:
        return True

    assert work.name == "work"
    assert work.inputs == {"a": Examples, "b": Model}
    assert work.optional == {"b"}
    assert work.outputs == {"c": Sequences}
    assert (work.config, work.value) == (Export, bool)


def no_config(a: Output[Examples]) -> None: ...
def bare(config: Empty, a: Examples) -> None: ...
def untyped(config: Empty, a) -> None: ...
def many(config: Empty, *a: Output[Examples]) -> None: ...
def optional_output(config: Empty, a: Output[Examples] | None) -> None: ...
def returns_list(config: Empty) -> list: ...
def reserved(config: Empty, Output: Output[Examples]) -> None: ...
def taken(config: Empty, live: Output[Examples]) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_config, "first argument must be `config`"),
        (bare, "bare: a: annotate it with Input"),
        (untyped, "untyped: a: annotate it with Input"),
        (many, "many: a: .* cannot be declared"),
        (optional_output, "a: an output cannot be optional"),
        (taken, "live is the link to a stage's unfinished work"),
        (returns_list, "it may return None, bool"),
    ],
)
def test_bad_signature_is_refused_with_the_fix(function, words):
    with pytest.raises(TypeError, match=words):
        component(function)


@component
def make(config: Empty, a: Output[Examples]) -> None: ...


@component
def use(config: Empty, a: Input[Examples], b: Output[Model]) -> None: ...


@component
def wrong(config: Empty, a: Input[Sequences]) -> None: ...


def test_wiring_is_checked():
    made = Node(make, Empty())
    check([made, Node(use, Empty(), {"a": made["a"]})])
    with pytest.raises(TypeError, match="use: input a is not wired"):
        check([made, Node(use, Empty())])
    with pytest.raises(TypeError, match="does not stand before it"):
        check([Node(use, Empty(), {"a": made["a"]})])
    with pytest.raises(TypeError, match="needs Sequences, and make makes Examples"):
        check([made, Node(wrong, Empty(), {"a": made["a"]})])
    with pytest.raises(TypeError, match="names no earlier node that returns bool"):
        check([made, Node(use, Empty(), {"a": made["a"]}, when="make")])
    with pytest.raises(KeyError, match="has no output c"):
        made["c"]
