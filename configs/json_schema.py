"""The JSON schema of a config, for editors."""

from __future__ import annotations

from typing import Any

from lmworks.configs.schema import Config


def json_schema() -> dict[str, Any]:
    """Describes every key of a config (JSON Schema, draft 2020-12): a recipe's editor checks and completes with it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:lmworks:config"}
    return dialect | Config.model_json_schema() | {"title": "lmworks config"}
