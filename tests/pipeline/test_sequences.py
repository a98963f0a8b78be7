"""Batches: their order and the lengths they are padded to."""

import numpy as np

from lmworks.pipeline.sequences import shape_lengths, shuffled_batches


def test_an_epoch_holds_every_row_once_and_groups_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 90, 1003)
    batches = shuffled_batches(lengths, 16, seed=5, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert [len(batch) for batch in batches].count(16) == 62
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 0.1 * np.ptp(lengths)
    again = shuffled_batches(lengths, 16, seed=5, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    other = shuffled_batches(lengths, 16, seed=5, epoch=3)
    assert not np.array_equal(np.concatenate(batches), np.concatenate(other))


def test_rare_lengths_share_the_shape_of_the_next() -> None:
    longest = np.repeat([5, 12, 17, 30, 33, 60], [20, 16, 10, 6, 3, 1])
    assert shape_lengths(longest, at_least=16).tolist() == [8, 16, 32, 64]
    assert shape_lengths(longest, at_least=4).tolist() == [8, 16, 24, 32, 64]
    assert shape_lengths(np.array([7])).tolist() == [8]
    for one in longest:
        assert (shape_lengths(longest) >= one).any()
