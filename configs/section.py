"""What the sections of a config have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lmworks.configs.url_secrets import password_advice

Positive = Annotated[int, Field(gt=0, le=10**12)]
"""A count that no memory depends on: beyond the bound it is a slip."""


def not_blank(value: str) -> str:
    """Returns a name or path that is one.

    Raises:
        ValueError: it is empty, which a variable that is not set makes of it.
    """
    if not value.strip():
        raise ValueError("is empty; is a variable not set?")
    return value


NotBlank = Annotated[str, AfterValidator(not_blank)]


@dataclass(frozen=True)
class OnlyFor:
    """Marks a key that has a meaning for some tasks only; a config of another task that sets it is refused."""

    tasks: tuple[str, ...]


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, finite numbers, no passwords, attribute docstrings as descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _holds_no_password(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and "://" in text and (advice := password_advice(text)):
                    raise ValueError(f"{name}: {advice}")  # without the value, which is secret
        return self
