"""Which models a task takes, and what is known of a preset by its name alone."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

from lmworks.configs.errors import UserError

CAUSAL = ("GPT2", "Gemma", "Gemma3", "Llama", "Llama3", "Mistral", "Phi3", "Qwen", "Qwen3", "SmolLM3")
"""Names before `CausalLM` of KerasHub's models that are tested here: training, perplexity, generation with a cache, export."""
_WITH_WORDPIECE = ("Bert", "DistilBert", "RoformerV2")
KERAS_HUB = {"text_classification": _WITH_WORDPIECE, "masked_lm": _WITH_WORDPIECE, "causal_lm": CAUSAL}
"""Task to names before `Backbone` of KerasHub's classes."""
HUGGING_FACE = {
    "text_classification": ("bert", "distilbert"),
    "masked_lm": ("bert",),
    "causal_lm": (
        "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3",
    ),
}  # fmt: skip
"""Task to values of `model_type` of folders in Hugging Face's format."""
WRITTEN_DECODERS = ("Llama3", "Llama", "Mistral", "Qwen", "Gemma", "Gemma3")
WRITTEN = {"text_classification": ("Bert",), "masked_lm": ("Bert",), "causal_lm": ("GPT2", *WRITTEN_DECODERS)}
"""Task to those of KerasHub's classes that are exported in Hugging Face's format."""
_CLASSES = {
    "bert": "Bert", "gpt2": "GPT2", "llama": "Llama3", "mistral": "Mistral", "qwen2": "Qwen", "gemma": "Gemma",
    "gemma3_text": "Gemma3",
}  # fmt: skip
"""`model_type` to the class, of those that can be written."""
_POSITIONS = {"bert": 512, "distil_bert": 512, "gpt2": 1024}
"""Positions of all of KerasHub's presets of a family; those of other families differ, or follow from their files."""


class Known(NamedTuple):
    """A preset that KerasHub knows by name."""

    family: str
    """Folder of its family in KerasHub's source."""
    url: str
    """Where KerasHub has it from, `kaggle://…`."""


@functools.cache
def keras_hub_presets() -> dict[str, Known]:
    """Lists the presets that KerasHub knows by name.

    The names are read from its source: to import it takes seconds.
    """
    found = importlib.util.find_spec("keras_hub")
    folders = (found.submodule_search_locations if found else None) or []
    presets: dict[str, Known] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("src/models/*/*_presets.py")):
            for statement in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
                    for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                        if isinstance(key, ast.Constant):
                            presets[str(key.value)] = Known(path.parent.name, _kaggle_url(value))
    return presets


def _kaggle_url(described: ast.expr) -> str:
    """The URL in what KerasHub's source says of a preset; empty if it has none."""
    pairs = zip(described.keys, described.values, strict=True) if isinstance(described, ast.Dict) else ()
    urls = (
        value.value
        for key, value in pairs
        if isinstance(key, ast.Constant) and key.value == "kaggle_handle"
        if isinstance(value, ast.Constant)
    )
    return str(next(urls, ""))


def unknown_name(preset: str) -> str | None:
    """Says that KerasHub knows no such preset, and what may be meant; None where it knows it.

    Args:
        preset: A name, no path and no URL.
    """
    presets = keras_hub_presets()
    if preset in presets or not presets:
        return None
    nearest = difflib.get_close_matches(preset, presets, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "a folder needs a '/' in its path"
    return f"KerasHub knows no such preset; {hint}"


def check_name(preset: str, task: str, sequence_length: int) -> None:
    """Refuses a preset of KerasHub by what its name says.

    Args:
        preset: A name, no path and no URL.
        task: Of the config.
        sequence_length: Tokens of a sequence.

    Raises:
        UserError: There is none of this name, it is of a family that the task does not take, or it has fewer positions.
    """
    if unknown := unknown_name(preset):
        raise UserError(f"model.preset: {preset}: {unknown}")
    family = keras_hub_presets()[preset].family if preset in keras_hub_presets() else ""
    taken = {name.lower(): name for name in KERAS_HUB[task]}
    if family.replace("_", "") not in taken:
        raise UserError(f"model.preset: {preset}: is of the family {family}; {task} takes {', '.join(taken.values())}")
    positions = _POSITIONS.get(family)
    if positions and sequence_length > positions:
        raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {positions} positions")


def check_writable(kind: str, task: str) -> None:
    """Refuses to train a model that cannot be exported in Hugging Face's format as the config asks.

    Args:
        kind: A `model_type`, the name before `Backbone` of a KerasHub class, or the family of a KerasHub preset.
        task: Of the config.

    Raises:
        UserError: It cannot.
    """
    name = _CLASSES.get(kind, kind).lower().replace("_", "")
    if name not in [written.lower() for written in WRITTEN[task]]:
        raise UserError(
            f"export.formats: huggingface is written for {', '.join(WRITTEN[task])} in this version, and this is a {kind}"
        )
