"""Which copy of a variable this device has, where `tf.distribute` mirrors it on several."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def replica() -> int:
    """Number of the device for which code is traced; 0 without a strategy."""
    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def local(variable: Any) -> Any:
    """This device's own copy of a mirrored variable, the first one outside of any device; anything else as it is."""
    return variable.values[replica()] if isinstance(variable, tf.distribute.DistributedValues) else variable
