"""The cross-entropy over a vocabulary, of this process's backend."""

from __future__ import annotations

from typing import Any

from lmworks.models.backend import backend


def cross_entropy(*arguments: Any, **options: Any) -> tuple[Any, Any]:
    """See `losses.cross_entropy`, whose arguments it takes; `losses_jax` is the same on JAX."""
    if backend() == "jax":
        from lmworks.models import losses_jax

        return losses_jax.cross_entropy(*arguments, **options)
    from lmworks.models import losses

    return losses.cross_entropy(*arguments, **options)
