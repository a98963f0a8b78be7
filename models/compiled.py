"""A function of a model as one compiled program of the Keras backend, from NumPy arrays to NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.models.backend import backend

if TYPE_CHECKING:
    import keras


def compiled(
    model: keras.Model, function: Callable[[dict[str, Any]], Any], specs: Mapping[str, keras.InputSpec]
) -> Callable[[dict[str, np.ndarray]], Any]:
    """Compiles a function that calls a model; it sees the weights that the model has when it is called.

    Args:
        model: whose variables the function reads.
        function: of a dictionary of tensors; gives one or several.
        specs: shapes (None where they vary) and dtypes of what it is given.
    """
    return (_on_jax if backend() == "jax" else _on_tensorflow)(model, function, specs)


def tensor_specs(specs: Mapping[str, keras.InputSpec]) -> dict[str, Any]:
    """TensorFlow's form of shapes and dtypes, for signatures."""
    import tensorflow as tf

    return {name: tf.TensorSpec(one.shape, one.dtype, name) for name, one in specs.items()}


def _on_tensorflow(model: keras.Model, function: Any, specs: Mapping[str, keras.InputSpec]) -> Any:
    import tensorflow as tf

    run = tf.function(function, input_signature=[tensor_specs(specs)])

    def call(inputs: dict[str, np.ndarray]) -> Any:
        found = run({name: tf.constant(inputs[name]) for name in specs})
        return tf.nest.map_structure(lambda one: one.numpy(), found)

    return call


def _on_jax(model: keras.Model, function: Any, specs: Mapping[str, keras.InputSpec]) -> Any:
    import jax
    import keras

    @jax.jit
    def run(values: list[Any], inputs: dict[str, Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(inputs)

    def call(inputs: dict[str, np.ndarray]) -> Any:
        found = run([one.value for one in model.variables], {name: inputs[name] for name in specs})
        return jax.tree.map(np.asarray, found)

    return call
