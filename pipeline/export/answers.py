"""What a servable answers to rows of texts, and why it does not answer a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lmworks.configs.errors import UserError
from lmworks.configs.shown import shown
from lmworks.pipeline.export.continuation import Wish, continue_text

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 1 << 22
"""Characters or bytes of a text at most; no model sees a hundredth of it, and its tokens would take gigabytes."""
_BATCH = 64
_BATCH_CHARACTERS = 1 << 22
_LONGEST_REASON = 500
MASK = "[MASK]"

Texts = tuple[str, ...]
"""The text of a row, or the two of a pair."""
Answer = dict[str, Any]
"""What the command prints beside the texts."""


@dataclass(frozen=True)
class Refusal:
    """Why a row has no answer."""

    reason: str


class GraphError(Exception):
    """The graph fails at a row; the message says why."""


class Answering(Protocol):
    """A servable of one task."""

    is_pair: bool
    """Whether a row is two texts."""

    def refuse(self, texts: Texts) -> str:
        """Says why a row cannot be answered, before the graph is called; empty if it can."""

    def answer(self, rows: Sequence[Texts]) -> list[Answer | Refusal]:
        """Calls the graph for all rows.

        Raises:
            GraphError: it fails at one of them.
        """

    def columns(self) -> dict[str, pa.DataType]:
        """The columns that a table of answers has, and their types."""

    def cells(self, answer: Answer) -> list[Any]:
        """An answer as cells of these columns."""


class Classifier:
    """Classes and their probabilities.

    Args:
        signature: `serving_default`.
        labels: classes of a SavedModel that does not name them.

    Raises:
        UserError: the classes are not known.
    """

    def __init__(self, signature: Any, labels: Sequence[str]) -> None:
        self._signature = signature
        self._arguments = [name for name in ("text", "text_b") if name in signature.structured_input_signature[1]]
        self.is_pair = len(self._arguments) == 2
        try:
            outputs = self._call([("",) * len(self._arguments)])
        except GraphError as error:
            raise UserError(f"the SavedModel cannot answer an empty text: {error}") from error
        names = [name.decode() for name in outputs["classes"].numpy()[0]] if "classes" in outputs else list(labels)
        if len(names) != outputs["probabilities"].shape[1]:
            raise UserError("the SavedModel does not say its classes: it is of an earlier lmworks; export it again")
        self.labels = names

    def refuse(self, texts: Texts) -> str:
        """Accepts every text."""
        return ""

    def answer(self, rows: Sequence[Texts]) -> list[Answer | Refusal]:
        """Classifies rows."""
        outputs = self._call(rows)
        scores, chosen = outputs["probabilities"].numpy().tolist(), outputs["label"].numpy()
        return [
            {"label": label.decode(), "probabilities": dict(zip(self.labels, row, strict=True))}
            if sum(row) == sum(row)
            else Refusal("the model gives no number")
            for row, label in zip(scores, chosen, strict=True)
        ]

    def columns(self) -> dict[str, pa.DataType]:
        """`prediction`, and `probability/<class>` of each class."""
        import pyarrow as pa

        return {"prediction": pa.string()} | {f"probability/{label}": pa.float32() for label in self.labels}

    def cells(self, answer: Answer) -> list[Any]:
        """Label and probabilities."""
        return [answer["label"], *answer["probabilities"].values()]

    def _call(self, rows: Sequence[Texts]) -> Any:
        import tensorflow as tf

        texts = zip(*rows, strict=True)
        with _name_graph_errors():
            return self._signature(
                **{name: tf.constant(column) for name, column in zip(self._arguments, texts, strict=True)}
            )


class MaskFiller:
    """The likeliest tokens at each `[MASK]`.

    Args:
        signature: `serving_default`.
    """

    is_pair = False

    def __init__(self, signature: Any) -> None:
        self._signature = signature

    def refuse(self, texts: Texts) -> str:
        """Refuses a text in which nothing is to be filled."""
        return "" if MASK in texts[0] else f"a masked language model fills {MASK}, and this text has none"

    def answer(self, rows: Sequence[Texts]) -> list[Answer | Refusal]:
        """Fills rows."""
        import tensorflow as tf

        with _name_graph_errors():
            outputs = self._signature(text=tf.constant([text for (text,) in rows]))
        answers: list[Answer | Refusal] = []
        for tokens, chances in zip(outputs["token"].numpy(), outputs["probability"].numpy().tolist(), strict=True):
            masks = [
                [{"token": token.decode(), "probability": chance} for token, chance in zip(names, values, strict=True)]
                for names, values in zip(tokens, chances, strict=True)
                if names[0]
            ]
            behind = Refusal(f"its {MASK} stands behind the tokens that the model sees; shorten the text before it")
            answers.append({"masks": masks} if masks else behind)
        return answers

    def columns(self) -> dict[str, pa.DataType]:
        """`masks`: of each, tokens and probabilities."""
        import pyarrow as pa

        return {"masks": pa.list_(pa.list_(pa.struct({"token": pa.string(), "probability": pa.float32()})))}

    def cells(self, answer: Answer) -> list[Any]:
        """The masks."""
        return [answer["masks"]]


class Continuer:
    """Text that goes on.

    Args:
        signatures: of the SavedModel.
        wish: how to continue.
    """

    is_pair = False

    def __init__(self, signatures: Any, wish: Wish) -> None:
        self._signatures, self._wish = signatures, wish

    def refuse(self, texts: Texts) -> str:
        """Accepts every text."""
        return ""

    def pieces(self, text: str) -> Iterator[str]:
        """Continues a text piece by piece.

        Raises:
            GraphError: the graph fails.
        """
        with _name_graph_errors():
            yield from continue_text(self._signatures, text, self._wish)

    def answer(self, rows: Sequence[Texts]) -> list[Answer | Refusal]:
        """Continues rows, each for itself: stop strings end them at different places."""
        return [{"continuation": "".join(self.pieces(text))} for (text,) in rows]

    def columns(self) -> dict[str, pa.DataType]:
        """`continuation`."""
        import pyarrow as pa

        return {"continuation": pa.string()}

    def cells(self, answer: Answer) -> list[Any]:
        """The continuation."""
        return [answer["continuation"]]


def task_of(signatures: Any) -> str:
    """The task of a SavedModel, which its signatures tell."""
    if "generate" in signatures:
        return "causal_lm"
    return "masked_lm" if "tokenize" in signatures else "text_classification"


def answering(signatures: Any, labels: Sequence[str], wish: Wish) -> Answering:
    """What answers texts with a SavedModel.

    Args:
        signatures: of the SavedModel.
        labels: classes of a SavedModel that does not name them.
        wish: how a causal language model continues.
    """
    task = task_of(signatures)
    if task == "causal_lm":
        return Continuer(signatures, wish)
    serving_default = signatures["serving_default"]
    return MaskFiller(serving_default) if task == "masked_lm" else Classifier(serving_default, labels)


def answer_all(model: Answering, rows: Sequence[Texts | Refusal]) -> list[Answer | Refusal]:
    """Answers rows, like lengths together: the graph pads to the longest text of a batch.

    Args:
        model: answers them.
        rows: texts, and what has been refused already.

    Returns:
        An answer or a refusal for each row, in the rows' order.
    """
    answers: dict[int, Answer | Refusal] = {}
    texts: dict[int, Texts] = {}
    for place, row in enumerate(rows):
        if isinstance(row, Refusal):
            answers[place] = row
        elif reason := model.refuse(row):
            answers[place] = Refusal(reason)
        else:
            texts[place] = row
    for batch in _batches(sorted(texts, key=lambda place: _size(texts[place])), lambda place: _size(texts[place])):
        answers |= zip(batch, _answer(model, [texts[place] for place in batch]), strict=True)
    return [answers[place] for place in range(len(rows))]


def _size(texts: Texts) -> int:
    return sum(map(len, texts))


def _batches(places: Sequence[int], size: Callable[[int], int]) -> Iterator[list[int]]:
    batch: list[int] = []
    characters = 0
    for place in places:
        if batch and (len(batch) == _BATCH or characters + size(place) > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(place)
        characters += size(place)
    if batch:
        yield batch


def _answer(model: Answering, rows: Sequence[Texts]) -> list[Answer | Refusal]:
    """Answers a batch; where the graph fails, row by row, so that only those rows are refused at which it does."""
    try:
        return model.answer(rows)
    except GraphError as error:
        if len(rows) == 1:
            return [Refusal(str(error))]
    return [answer for row in rows for answer in _answer(model, [row])]


@contextmanager
def _name_graph_errors() -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise GraphError(f"the graph fails: {shown(_first_line(error.message), _LONGEST_REASON)}") from error


def _first_line(message: str) -> str:
    """What is wrong, in a message that may begin with where."""
    lines = [line.strip() for line in message.splitlines()]
    telling = [
        line for line in lines if line and not line.startswith(("Graph execution error", "Detected at node", "<"))
    ]
    return telling[0] if telling else "no reason is said"


def rounded(value: Any) -> Any:
    """An answer with its probabilities to six places, as a person reads them."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def text_of(value: str) -> str | Refusal:
    """A text that the graph can take."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return Refusal("is no UTF-8 text")
    return value if len(value) <= LONGEST else too_long()


def too_long() -> Refusal:
    """The refusal of a text that is too long."""
    return Refusal(f"is longer than {LONGEST:,} characters or bytes; cut it, for no model reads as much")
