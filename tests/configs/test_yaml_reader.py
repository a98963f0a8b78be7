import math
import shlex

import pytest

from lmworks.configs.load import ConfigError, load, override
from lmworks.configs.yaml_reader import parse_value, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("5.0e-5", 5e-5), (".5", 0.5), ("1.", 1.0), ("-3", -3), ("90_000_000", 90_000_000), ("0x10", 16),
        ("007", "007"), ("12:30", "12:30"), ("2024-01-31", "2024-01-31"), ("e5", "e5"), ("yes", True), ("null", None),
        ("'###'", "###"), ("a#b", "a#b"), ("it's", "it's"), ("[a, 'b # c']", ["a", "b # c"]), ("''", ""), ("-.inf", -math.inf),
    ],
)  # fmt: skip
def test_a_scalar_keeps_what_was_written(text, value):
    assert parse_value(text, "--set=k") == value


@pytest.mark.parametrize("text", ["###", "---", "~", "", "#"])
def test_a_value_that_becomes_null_is_refused_with_its_quoted_form(text):
    tree = {}
    with pytest.raises(ConfigError, match="is null in YAML: write null, or quote the text") as caught:
        override(tree, f"ingest.separator={text}")
    assert f"--set=ingest.separator=\"'{text}'\"" in str(caught.value)
    override(tree, f"ingest.separator='{text}'")
    assert tree == {"ingest": {"separator": text}}


@pytest.mark.parametrize("text", ["a #b", "[a, b] # c", "a: b # c", "'x' # y"])
def test_a_value_that_loses_its_end_to_a_comment_is_refused(text):
    with pytest.raises(ConfigError, match="is a comment in YAML and would be lost"):
        parse_value(text, "--set=k")


@pytest.mark.parametrize("value", ["", "###", "~", "# a comment"])
def test_an_empty_value_in_a_file_is_refused_by_line(tmp_path, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"name: x\ntask: causal_lm\ningest:\n  train: a.txt\n  separator: {value}\nmodel: {{preset: p}}\n")
    with pytest.raises(
        ConfigError, match=r"c\.yaml:5: the key 'separator' (is ~|has no value), which YAML reads as null"
    ):
        load(path)
    path.write_text(path.read_text().replace(f"separator: {value}", "separator: null # the whole file"))
    assert load(path).ingest.separator is None


def test_an_empty_entry_of_a_list_is_refused():
    with pytest.raises(ConfigError, match=r"t:2: an entry has no value"):
        parse_yaml("- a\n-\n", "t")


@pytest.mark.parametrize(
    "text",
    ["|", ">", "|-", "!!str", "!!str a", "!x", "!!binary aGk=", "--- x", "--- 'x'", "&a b", "&a 'b'", "a\n b", "'a\n b'", "\ufeffa"],
)  # fmt: skip
def test_text_of_which_yaml_takes_a_part_is_refused_with_its_quoted_form(text):
    with pytest.raises(ConfigError, match=r"^--set=k: YAML reads .* as .*; quote the text: --set=k=") as caught:
        parse_value(text, "--set=k")
    form = str(caught.value).partition("quote the text: --set=k=")[2]
    assert parse_value(shlex.split(form)[0], "--set=k") == text


@pytest.mark.parametrize("text", [",", "@x", "%x", "*", "`a`", "it's: {", "]", "%$x"])
def test_text_that_is_no_yaml_is_refused_with_its_quoted_form(text):
    with pytest.raises(
        ConfigError, match=r"--set=k: no valid YAML: .*; if .* is text, quote the text: --set=k="
    ) as caught:
        parse_value(text, "--set=k")
    form = str(caught.value).partition("quote the text: --set=k=")[2]
    assert parse_value(shlex.split(form)[0], "--set=k") == text


@pytest.mark.parametrize("text", ["=", "<<", "==", "a  b", "[a, &x b]", "a\u00a0", "\u00a0", "..."[:2]])
def test_text_without_a_meaning_in_yaml_stays(text):
    assert parse_value(text, "--set=k") == (["a", "b"] if text[0] == "[" else text)


@pytest.mark.parametrize(("key", "kind"), [("[a]", "a list"), ("{a: 1}", "a mapping"), ("a : b", "a mapping")])
def test_a_key_that_is_no_text_is_refused(key, kind):
    with pytest.raises(ConfigError, match=f"^t:2: a key must be text, and this is {kind}; quote it if it is text$"):
        parse_yaml(f"x: 1\n? {key}\n: b\n", "t")
    with pytest.raises(ConfigError, match=f"a key must be text, and this is {kind}"):
        parse_value(f"? {key}", "--set=k")


def bomb(levels: int) -> str:
    """Each level stands nine times in the next one: 9^levels words of a few lines."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bomb(9), "t:5: has more than 50,000 values, with what its aliases stand for"),
        ("a: &a {k: v}\n" + "".join(f"b{n}: &b{n} {{<<: [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 9)}]}}\n" for n in range(9)), "t:6: has more than 50,000 values"),
        ("a: &a " + "x" * 1000 + "\nb: [" + "*a," * 2000 + "]", "t:2: is larger than 1,048,576 characters, with what its aliases"),
        ("[" + "a," * 60_000 + "]", "t:1: has more than 50,000 values, with what its aliases stand for"),
        ("a: &a {}\nb: [" + "*a," * 60_000 + "]", "t:2: has more than 50,000 values, with what its aliases stand for"),
        ("a: &a [*a]", "t:1: *a stands within what it stands for"),
        ("a: &a {<<: *a}", "t:1: *a stands within what it stands for"),
        ("[" * 100_000, "t:1: is nested more than 32 levels deep"),
        ("{a: " * 100_000, "t:1: is nested more than 32 levels deep"),
        ("- " * 3_000 + "a", "t:1: is nested more than 32 levels deep"),
        ("a: " + "x" * 2**20, "t: is longer than 1,048,576 characters"),
        ("a: !!timestamp 2024-99-99", "t:1: !!timestamp is a tag that no config has"),
        ("a: !!python/object/apply:os.abort []", "t:1: !!python/object/apply:os.abort is a tag that no config has"),
        ("a: !!int x", "t:1: 'x' is no number"), ("a: !!float ''", "t:1: '' is no number"), ("a: !!bool 2", "t:1: '2' is no truth value"),
        ("a: 0x_", "t:1: '0x_' is no number"), ("a: 0b_", "t:1: '0b_' is no number"), ("a: " + "1" * 5_000, "t:1: '11111"),
        ("a: 0x" + "f" * 5_000, "t:1: '0xfff"), ("a\nb: \0", "t:2: no valid YAML: it has no character U+0000; is it a text file?"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_too_large_or_no_value_is_refused_in_one_short_line(text, problem):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "t")
    message = str(caught.value)
    assert message.startswith(problem)
    assert "\n" not in message
    assert len(message) < 300


def test_aliases_of_a_usual_size_are_taken():
    assert parse_yaml(bomb(3), "t")["a2"][8][8][8] == "lol"
