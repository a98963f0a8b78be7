"""The learning rate beside the schedules of `transformers`, over PyTorch's optimizer."""

import math

import pytest

from lmworks.pipeline.train.schedule import WarmupDecay

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("steps", "ratio"), [(25, 0.1), (40, 0.05), (30, 0.0), (101, 0.06)])
def test_rates_equal_those_of_transformers_but_for_a_step_in_the_warm_up(shape, steps, ratio):
    warmup = math.ceil(steps * ratio)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    name = "constant_with_warmup" if shape == "constant" else shape
    theirs = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rates = []
    for _ in range(steps + 1):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    ours = [float(WarmupDecay(0.01, steps, ratio, shape)(step)) for step in range(steps)]
    assert ours[:warmup] == pytest.approx(rates[1 : warmup + 1], abs=1e-8)
    assert ours[warmup:] == pytest.approx(rates[warmup:steps], abs=1e-8)
    if warmup:
        assert rates[0] == 0.0, "their first step of a warm-up changes nothing"
