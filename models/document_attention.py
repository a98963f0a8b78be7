"""Attention that stays within a document, where a sequence holds several: what one says must not depend on its neighbours.

A block-diagonal mask beside the causal one, and positions that begin anew with every document where they are learnt (rotary ones
are relative, so that the mask suffices). Each document is computed as if it stood alone (Krell et al. 2021, arXiv:2107.02027).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lmworks.configs.errors import UserError

if TYPE_CHECKING:
    import keras

_MASK_ARGUMENT = "decoder_attention_mask"
_MASK_METHOD = "_compute_attention_mask"
"""Of Gemma's layers, whose `call` takes no mask of attention."""


def check_attention_mask(model: keras.Model) -> None:
    """Refuses a model whose layers take no mask.

    Raises:
        UserError: naming the key and its fix.
    """
    for layer in model.backbone.transformer_layers:
        if not _takes_mask(layer) and not hasattr(layer, _MASK_METHOD):
            raise UserError(
                f"train.attend_across_documents: the attention of {type(model).__name__} takes no mask; set it to true"
            )


def _takes_mask(layer: keras.layers.Layer) -> bool:
    return _MASK_ARGUMENT in inspect.signature(type(layer).call).parameters


@contextlib.contextmanager
def within_documents(model: keras.Model, documents: Any) -> Iterator[None]:
    """Within it, a token of the model's sequences sees only its own document.

    Args:
        model: a `CausalLM` that `check_attention_mask` accepts.
        documents: int32 [batch, length], the same number for all tokens of a document, which stand together.
    """
    from keras import ops

    same = ops.equal(documents[:, :, None], documents[:, None, :])
    patches: list[tuple[Any, str, Callable[..., Any]]] = []
    for layer in model.backbone.transformer_layers:
        if _takes_mask(layer):
            patches.append((layer, "call", _with_argument(layer.call, _MASK_ARGUMENT, same)))
        else:
            patches.append((layer, _MASK_METHOD, _masked(getattr(layer, _MASK_METHOD), same)))
    learnt = getattr(model.backbone, "position_embedding", None)
    if learnt is not None:
        places = ops.arange(ops.shape(documents)[1])
        before = ops.logical_and(same, places[None, :] < places[:, None])
        positions = ops.sum(ops.cast(before, "int32"), axis=-1)
        patches.append((learnt, "call", _with_argument(learnt.call, "positions", positions)))
    outer = [layer.__dict__.get(name) for layer, name, _ in patches]
    try:
        for layer, name, changed in patches:
            layer.__dict__[name] = changed
        yield
    finally:
        for (layer, name, _), before in zip(patches, outer, strict=True):
            if before is None:
                layer.__dict__.pop(name, None)
            else:
                layer.__dict__[name] = before


def _with_argument(plain: Callable[..., Any], name: str, value: Any) -> Callable[..., Any]:
    return lambda *arguments, **others: plain(*arguments, **{**others, name: value})


def _masked(plain: Callable[..., Any], same: Any) -> Callable[..., Any]:
    from keras import ops

    return lambda *arguments, **others: ops.logical_and(ops.cast(plain(*arguments, **others), "bool"), same)
