"""The model card that lies beside a servable."""

from __future__ import annotations

import json
from typing import Any

from lmworks.tfx.artifacts import Evaluation, Model


def model_card(
    name: str, labels: list[str], pair: bool, model: Model, evaluation: Evaluation, proof: dict[str, Any]
) -> str:
    """Markdown: what the model is, how to call it, how good it is, where its limits are."""
    measured = json.loads((evaluation.path / "metrics.json").read_text())
    rows = "\n".join(
        f"| {metric} | {entry['value']:.4f} | "
        + (f"{entry['ci95'][0]:.4f} to {entry['ci95'][1]:.4f} |" if "ci95" in entry else "|")
        for metric, entry in measured["metrics"].items()
    )
    second = ', text_b=tf.constant(["…"])' if pair else ""
    return f"""# {name}

Text classification{" of pairs" if pair else ""} into {", ".join(f"`{label}`" for label in labels)}.
Trained in {model.properties["precision"]}, evaluated and served in float32.

## Use

```python
import tensorflow as tf, tensorflow_text
served = tf.saved_model.load("saved_model").signatures["serving_default"]
served(text=tf.constant(["…"]){second})  # probabilities: float32 [batch, {len(labels)}], label: string [batch]
```

## Measured on the {measured["split"]} split, {measured["examples"]:,} rows

| metric | value | 95 % interval |
|---|---|---|
{rows}

The SavedModel gave the evaluated probabilities from raw text in a fresh process on all {proof["rows"]:,} rows
(largest difference {proof["largest_difference"]:.1e}).

## Limits

- The figures hold for text like the test split's. Measure again on your own rows before you rely on them.
- The model repeats the biases of its training text and of the preset it started from; `evaluate.slices` shows groups.
- KerasHub's own preprocessor in the model's preset folder may tokenise rare characters otherwise than this servable.
"""
