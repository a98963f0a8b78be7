"""The learning rate over the steps of a run, by hand; `tests/peers/test_schedule.py` compares it with `transformers`."""

import pytest

from lmworks.pipeline.train.schedule import WarmupDecay


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
