"""The learning rate over the steps of a run, by hand, and of runs that share their unfinished work.

`tests/peers/test_schedule.py` compares it with `transformers`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.pipeline.train.schedule import WarmupDecay
from tests.pipeline.training import config

STEPS = st.integers(1, 300)
RATIOS = st.sampled_from([0.0, 0.003, 0.05, 0.1, 0.5, 1.0])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # 11 steps, ceil(2.75) = 3 of them rise; 8 fall.
        ("linear", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 3: 1.0, 4: 7 / 8, 7: 1 / 2, 10: 1 / 8, 11: 0.0}),
        ("cosine", {0: 1 / 3, 2: 1.0, 3: 1.0, 5: 0.85355339, 7: 1 / 2, 10: 0.03806023, 11: 0.0}),
        ("constant", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 3: 1.0, 10: 1.0}),
    ],
)
def test_rates_by_hand(shape, expected):
    schedule = WarmupDecay(0.5, 11, 0.25, shape)
    assert {step: float(schedule(step)) for step in expected} == pytest.approx(
        {step: 0.5 * share for step, share in expected.items()}, abs=1e-7
    )


@pytest.mark.parametrize(
    ("steps", "ratio", "warmup"), [(10, 0.0, 0), (30, 0.01, 1), (30, 0.1, 3), (25, 0.1, 3), (20, 1.0, 20)]
)
def test_warm_up_steps_are_rounded_up(steps, ratio, warmup):
    rates = [float(WarmupDecay(1.0, steps, ratio, "linear")(step)) for step in range(steps)]
    peak = max(warmup - 1, 0)
    assert rates[peak] == 1.0
    assert rates[0] == pytest.approx(1 / max(warmup, 1))
    assert rates[: peak + 1] == sorted(set(rates[: peak + 1]))
    if warmup < steps:
        assert rates[warmup] == 1.0
        assert rates[-1] == pytest.approx(1 / (steps - warmup)), "the last step still moves"


def learning_rates(of):
    """Those of all steps."""
    schedule = WarmupDecay(of.learning_rate, of.steps, of.warmup_ratio, of.schedule)
    return np.asarray(schedule(np.arange(of.steps)))


def runs(shape, ratio, *steps):
    return [config(schedule=shape, warmup_ratio=ratio, steps=count) for count in steps]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["linear", "cosine", "constant"]), RATIOS, STEPS, RATIOS, STEPS)
def test_runs_that_go_on_from_each_other_have_the_same_learning_rates(shape, ratio, one, other_ratio, other):
    first = config(schedule=shape, warmup_ratio=ratio, steps=one)
    second = config(schedule=shape, warmup_ratio=other_ratio, steps=other)
    if first.resume_identity() == second.resume_identity():
        count = min(one, other)
        np.testing.assert_array_equal(learning_rates(first)[:count], learning_rates(second)[:count])


@pytest.mark.parametrize(
    ("shape", "ratio", "one", "other", "same"),
    [
        ("constant", 0.0, 30, 60, True),
        ("constant", 0.1, 30, 60, False),
        ("constant", 0.1, 21, 30, True),
        ("constant", 0.01, 5, 100, True),
        ("constant", 0.01, 100, 101, False),
        ("linear", 0.0, 30, 60, False),
        ("linear", 0.1, 30, 31, False),
        ("cosine", 0.1, 30, 60, False),
    ],
)
def test_which_lengths_share_their_unfinished_work(shape, ratio, one, other, same):
    first, second = runs(shape, ratio, one, other)
    assert (first.resume_identity() == second.resume_identity()) == same
    assert (learning_rates(first)[:one] == learning_rates(second)[:one]).all() == same


@pytest.mark.parametrize(
    ("shape", "one", "other", "same"),
    [
        ("constant", (30, 0.1), (60, 0.05), True),
        ("constant", (30, 0.0), (60, 0.01), True),
        ("constant", (30, 0.1), (60, 0.1), False),
        ("linear", (30, 0.1), (30, 0.11), False),
        ("linear", (30, 0.1), (30, 0.2), False),
    ],
)
def test_a_constant_learning_rate_depends_on_the_steps_of_the_warm_up_and_not_on_their_share(shape, one, other, same):
    first, second = (config(schedule=shape, steps=steps, warmup_ratio=ratio) for steps, ratio in (one, other))
    assert (first.resume_identity() == second.resume_identity()) == same
    if same:
        count = one[0]
        np.testing.assert_array_equal(learning_rates(first)[:count], learning_rates(second)[:count])


def test_epochs_count_only_where_the_learning_rate_depends_on_them():
    def identity(**keys):
        return config(steps=None, **keys).resume_identity()

    free = {"schedule": "constant", "warmup_ratio": 0.0}
    assert identity(epochs=1, **free) == identity(epochs=2, **free)
    assert identity(epochs=1, **free) == config(steps=7, epochs=5, **free).resume_identity()
    for bound in ({"schedule": "linear"}, {"schedule": "constant", "warmup_ratio": 0.1}):
        assert identity(epochs=1, **bound) != identity(epochs=2, **bound)
        assert (
            config(steps=7, epochs=1, **bound).resume_identity() == config(steps=7, epochs=2, **bound).resume_identity()
        )
