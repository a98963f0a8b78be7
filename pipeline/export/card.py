"""The model card that lies beside a servable."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from lmworks.configs.schema import ExportStage
from lmworks.models.transformer_arithmetic import FILE, unlike_keras_hub
from lmworks.pipeline.markdown import escaped
from lmworks.tfx.artifacts import Evaluation, Model


class Described(NamedTuple):
    """What a task says of its servable."""

    model: Any
    """In float32."""
    pieces: Any
    """The exact tokenizer."""
    length: int
    """Most tokens."""
    properties: dict[str, Any]
    about: str
    """One sentence, Markdown."""
    use: str
    """One line of Python in which `served` is the signature `serving_default`."""
    labels: tuple[str, ...] = ()


def model_card(
    config: ExportStage, described: Described, model: Model, evaluation: Evaluation, proof: dict[str, Any]
) -> str:
    """Markdown: what the model is, how to call it, how good it is, where its limits are."""
    measured = json.loads((evaluation.path / "metrics.json").read_text(encoding="utf-8"))
    rows = "\n".join(
        f"| {escaped(metric)} | {entry['value']:.4f} | "
        + (f"{entry['ci95'][0]:.4f} to {entry['ci95'][1]:.4f} |" if "ci95" in entry else "– |")
        for metric, entry in measured["metrics"].items()
    )
    absent = [label for label in described.labels if f"recall/{label}" not in measured["metrics"]]
    rows += "".join(f"\n| precision, recall, f1/{escaped(label)} | – | – |" for label in absent)
    gate = json.loads((evaluation.path / "blessing.json").read_text(encoding="utf-8"))
    demanded = "\n".join(f"- {escaped(reason)}" for reason in gate["reasons"])
    return f"""# {config.name}

{described.about}
Trained in {model.properties["precision"]}, evaluated and served in float32.

## Use

```python
import tensorflow as tf, tensorflow_text
served = tf.saved_model.load("saved_model").signatures["serving_default"]
{described.use}
```

## Measured on the {escaped(measured["split"])} split, {measured["examples"]:,} rows

| metric | value | 95 % interval |
|---|---|---|
{rows}

"–": the rows say nothing, or too little for an interval.

Thresholds that it had to keep:

{demanded}

The SavedModel gave the evaluated probabilities in a fresh process on all {proof["rows"]:,} rows that were compared
(largest difference {proof["largest_difference"]:.1e}).

## Limits

- The figures hold for text like the test split's. Measure again on your own rows before you rely on them.
- The model repeats the biases of its training text and of the preset it started from; `evaluate.slices` shows groups.
- KerasHub's own preprocessor in the model's preset folder may tokenise rare characters otherwise than this servable.
{_beside_keras_hub(described.model)}"""


def _beside_keras_hub(loaded: Any) -> str:
    """A line of Markdown: what plain KerasHub computes otherwise with the model's preset; empty where it is the same."""
    unlike = unlike_keras_hub(loaded)
    if not unlike:
        return ""
    return (
        "- KerasHub alone opens the model's preset folder with functions of its own; lmworks reads what was trained from "
        f"`{FILE}`: {escaped('; '.join(unlike))}.\n"
    )
