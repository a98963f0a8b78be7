r"""How byte-level BPE cuts a text into words before its merges: rules that are known, each as `tokenizers` and as a graph.

A rule is a property of a checkpoint's `tokenizer.json`. The patterns are regular expressions of Oniguruma; the graph has RE2,
which finds the same leftmost alternative but knows no look-ahead and only ASCII's `\s`. Every known pattern looks ahead in
one place only, `\s+(?!\S)`: of several blanks before a word the last one belongs to the word. So that border is drawn first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmworks.configs.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

# Unicode's White_Space; RE2's own \s is ASCII.
_SPACE = r"\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
# A byte that UTF-8 does not have: no text holds it and no pattern matches it.
BORDER = b"\xff"

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+"
_WORD = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3 (GPT-4)": rf"{_WORD}|\p{{N}}{{1,3}}{_SIGNS}[\r\n]*{_END}",
    "Qwen 2": rf"{_WORD}|\p{{N}}{_SIGNS}[\r\n]*{_END}",
    "GPT-4o": rf"{_CASED % (f'{_CONTRACTION}?', f'{_CONTRACTION}?')}|\p{{N}}{{1,3}}{_SIGNS}[\r\n/]*{_END}",
    "Tekken": rf"{_CASED % ('', '')}|\p{{N}}{_SIGNS}[\r\n/]*{_END}",
}
"""Those of published checkpoints, as they stand in their files."""
KNOWN = f"{', '.join(PATTERNS)}, and digits one by one or together before one of them"


class Words(NamedTuple):
    """Each match of a pattern is a word."""

    pattern: str


class Digits(NamedTuple):
    """Numbers stand alone: each digit, or each row of digits."""

    individual: bool


@dataclass(frozen=True)
class Splitting:
    """Steps that cut a text finer and finer; each sees only one piece of the step before.

    Args:
        steps: in their order.
        nfc: whether the text is composed first (Unicode's normalisation form C).
    """

    steps: tuple[Words | Digits, ...]
    nfc: bool = False

    @classmethod
    def parse(cls, path: Path, described: dict[str, Any]) -> Splitting:
        """Reads `normalizer` and `pre_tokenizer` of a `tokenizer.json`.

        Raises:
            UserError: naming what is not known.
        """
        normalizer = described.get("normalizer") or {}
        parts = (
            normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer] if normalizer else []
        )
        if any(one["type"] != "NFC" for one in parts):
            kinds = ", ".join(one["type"] for one in parts)
            raise UserError(f"{path}: normalises with {kinds}; byte-level BPE is known here with NFC or without any")
        splitter = described.get("pre_tokenizer") or {}
        parts = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
        steps = tuple(step for one in parts for step in _steps(path, one))
        if not parts or parts[-1].get("type") != "ByteLevel":
            raise UserError(f"{path}: is no byte-level BPE: it does not end with ByteLevel; known are {KNOWN}")
        return cls(steps, bool(normalizer))

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """What is tokenised: string [batch] to string [batch], valid UTF-8."""
        import tensorflow as tf

        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.nfc:
            import tensorflow_text as tf_text

            texts = tf_text.normalize_utf8(texts, "NFC")
        return texts

    def split(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Words of normalised texts: string [batch] to ragged string [batch, (words)]; works inside a graph."""
        import tensorflow as tf

        for step in self.steps:
            for pattern, rewrite in _borders(step):
                texts = tf.strings.regex_replace(texts, pattern, rewrite)
        words = tf.strings.split(texts, BORDER)
        return tf.ragged.boolean_mask(words, words.with_flat_values(tf.strings.length(words.flat_values) > 0))

    def apply_to(self, tokenizer: Any) -> None:
        """Gives the rule to a `tokenizers.Tokenizer`."""
        from tokenizers import Regex, normalizers, pre_tokenizers

        if self.nfc:
            tokenizer.normalizer = normalizers.NFC()
        plain = self.steps[-1:] == (Words(PATTERNS["GPT-2"]),)
        parts: list[Any] = [
            pre_tokenizers.Digits(individual_digits=step.individual)
            if isinstance(step, Digits)
            else pre_tokenizers.Split(Regex(step.pattern), "isolated")
            for step in (self.steps[:-1] if plain else self.steps)
        ]
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=plain))
        tokenizer.pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)


GPT2 = Splitting((Words(PATTERNS["GPT-2"]),))


def _steps(path: Path, described: dict[str, Any]) -> list[Words | Digits]:
    kind = described.get("type")
    if kind == "Digits":
        return [Digits(bool(described["individual_digits"]))]
    if kind == "ByteLevel" and not described.get("add_prefix_space"):
        return [Words(PATTERNS["GPT-2"])] if described.get("use_regex", True) else []
    if kind == "Split":
        pattern = described["pattern"].get("Regex")
        # With `Removed` and `invert` the matches are what stays; both ways each is a word, as every character is in one.
        whole = (described["behavior"], bool(described["invert"])) in (("Isolated", False), ("Removed", True))
        if pattern in PATTERNS.values() and whole:
            return [Words(pattern)]
        shown = pattern or described["pattern"]
        raise UserError(f"{path}: splits by a pattern that is not known here, {shown!r}; known are {KNOWN}")
    raise UserError(f"{path}: splits by {kind or 'nothing'}; a byte-level BPE is known here with {KNOWN}")


@functools.cache
def _borders(step: Words | Digits) -> list[tuple[str, bytes]]:
    """Patterns of RE2 and what their matches become, one after the other, so that a border stands between words."""
    if isinstance(step, Digits):
        return [(r"\p{N}" if step.individual else r"\p{N}+", BORDER + b"\\0" + BORDER)]
    pattern = step.pattern.replace(r"|\s+(?!\S)", "").replace(r"[^\s", f"[^{_SPACE}").replace(r"\s", f"[{_SPACE}]")
    # Rows of blanks that end with a new line have a rule of their own, where there is one.
    last = _SPACE.replace(r"\t-\r", r"\t\x0B\x0C") if r"\s*[\r\n]+" in step.pattern else _SPACE
    return [
        (rf"([{_SPACE}])([{last}][^{_SPACE}])", b"\\1" + BORDER + b"\\2"),
        (pattern, b"\\0" + BORDER),
    ]
