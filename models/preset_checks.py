"""What a preset's folder is, looked at before anything is built from it: whole, of the right kind, long enough, with its tokenizer.

All of it is read from JSON and from the headers of the weights' files. A folder may come from somebody else: what is wrong with it
is said in one line that names the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.models.checkpoint_files import check_finite, headers_of
from lmworks.models.checkpoint_shapes import check_shapes
from lmworks.models.config_fields import read_config
from lmworks.models.decoder_settings import described_with_defaults, read_decoder_settings
from lmworks.models.json_files import read_object, understanding
from lmworks.models.keras_hub_folder import check_keras_hub_folder, read_keras_hub_config
from lmworks.models.preset_kinds import HUGGING_FACE, KERAS_HUB
from lmworks.models.tokenizer import EXACT, SENTENCEPIECE_FILES
from lmworks.models.transformer_settings import WITH_LEARNED_POSITIONS, read_transformer_settings, refuse_other_kinds
from lmworks.models.vocabulary import from_lines

_MASK = "[MASK]"
_SAMPLE = 4096
"""Numbers of each tensor that are looked at before a run; all of them are before they are trained."""


def check_files(folder: Path) -> None:
    """Refuses a folder whose files are damaged, lead to others, or do not fit each other.

    Args:
        folder: A preset in KerasHub's or Hugging Face's format; one in no known format is left to KerasHub.

    Raises:
        UserError: Naming the file.
    """
    if kept := read_keras_hub_config(folder):
        check_keras_hub_folder(folder, kept)
    elif config := read_config(str(folder)):
        path, described = config
        tensors = headers_of(folder)
        if not tensors:
            raise UserError(f"model.preset: {folder}: has no weights in safetensors files")
        check_shapes(path, described_with_defaults(str(folder)) or described, tensors)
    check_finite(folder, _SAMPLE)


def check_for_task(folder: Path, task: str, sequence_length: int, has_tokenizer: bool = True) -> None:
    """Refuses a folder that a task cannot use.

    Args:
        folder: A preset.
        task: Of the config.
        sequence_length: Tokens of a sequence.
        has_tokenizer: Whether the folder holds more than `config.json`.

    Raises:
        UserError: It is of another kind, has fewer positions or other tokens, or says something that cannot be computed here.
    """
    if kept := read_keras_hub_config(folder):
        name, settings = kept["class_name"].removesuffix("Backbone"), kept["config"]
        if name not in KERAS_HUB[task]:
            raise UserError(
                f"model.preset: {folder}: is a {kept['class_name']}; {task} takes {', '.join(KERAS_HUB[task])}"
            )
        _check_length(sequence_length, settings.get("max_sequence_length") or settings.get("max_position_embeddings"))
        embeddings = settings.get("vocabulary_size")
    else:
        described = _described(folder)
        refuse_other_kinds(str(folder), HUGGING_FACE[task], task)
        if read_transformer_settings(str(folder), WITH_LEARNED_POSITIONS) is None:
            read_decoder_settings(str(folder), sequence_length)
        else:
            _check_length(sequence_length, described.get("max_position_embeddings") or described.get("n_positions"))
        embeddings = described.get("vocab_size")
    if has_tokenizer:
        _check_vocabulary(folder, embeddings, task)


def kind_of(folder: Path) -> str:
    """Names the kind of a preset: the name before `Backbone` of KerasHub's class, or the `model_type`.

    Raises:
        UserError: The folder is of no known format.
    """
    kept = read_keras_hub_config(folder)
    return kept["class_name"].removesuffix("Backbone") if kept else str(_described(folder)["model_type"])


def _described(folder: Path) -> dict[str, Any]:
    config = read_config(str(folder))
    if config is None:
        raise UserError(
            f"model.preset: {folder / 'config.json'}: is neither of KerasHub's nor of Hugging Face's format: it has no "
            "registered_name and no model_type"
        )
    return described_with_defaults(str(folder)) or config[1]


def _check_length(sequence_length: int, longest: Any) -> None:
    if isinstance(longest, int) and sequence_length > longest:
        raise UserError(f"preprocess.sequence_length: {sequence_length} is above the model's {longest} positions")


def _check_vocabulary(folder: Path, embeddings: Any, task: str) -> None:
    ids = _token_ids(folder)
    if ids is None:
        return
    largest = max(ids.values(), default=-1)
    if isinstance(embeddings, int) and largest >= embeddings:
        raise UserError(
            f"model.preset: {folder}: its tokenizer has ids up to {largest:,}, and the model has {embeddings:,} embeddings"
        )
    if task == "masked_lm" and _MASK not in ids:
        raise UserError(
            f"model.preset: {folder}: its tokenizer's vocabulary lacks {_MASK}, which a masked language model needs"
        )


def _token_ids(preset: Path) -> dict[str, int] | None:
    """Token ids of a folder's tokenizer; None where it is of a format that is not read here.

    Raises:
        UserError: There is no tokenizer, or its file is damaged.
    """
    folder = preset / EXACT if (preset / EXACT).is_dir() else preset
    path = folder / "tokenizer.json"
    described = read_object(path)
    if "model" in described:
        with understanding(path):
            vocabulary = described["model"]["vocab"]
            added = {token["content"]: token["id"] for token in described.get("added_tokens") or []}
            return _numbered({**vocabulary, **added}) if isinstance(vocabulary, dict) else None
    for name in ("vocab.json", "encoder.json", "assets/tokenizer/vocabulary.json"):
        if (folder / name).exists():
            with understanding(folder / name):
                return _numbered(read_object(folder / name))
    for name in ("vocab.txt", "assets/tokenizer/vocabulary.txt"):
        if (folder / name).is_file():
            with understanding(folder / name):
                return {token: index for index, token in enumerate(from_lines(folder / name))}
    if not any((folder / name).exists() for name in SENTENCEPIECE_FILES):
        raise UserError(
            f"model.preset: {preset}: has no tokenizer: none of tokenizer.json, vocab.txt, vocab.json, tokenizer.model"
        )
    return None


def _numbered(ids: dict[str, Any]) -> dict[str, int]:
    if wrong := [token for token, index in ids.items() if type(index) is not int]:
        raise ValueError(f"token {wrong[0][:60]!r} has the id {str(ids[wrong[0]])[:60]}")
    return ids
