"""Whole-word masking: which words are drawn, and how often."""

import numpy as np
import pytest

from lmworks.models.masked_lm import draw_mask
from lmworks.models.wordpiece import WordPiece
from lmworks.pipeline.masking import MaskedRows

PIECES = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"], lowercase=True)
STARTS = np.array([not token.startswith("##") for token in PIECES.vocabulary])
DRAWS = 3000
ROOM = MaskedRows(PIECES, 128, 0.15, whole_word=True).most
"""Targets for which a sequence of 128 has room."""


def shares(lengths: list[int], most: int) -> tuple[dict[int, float], list[int]]:
    """How often a word of each length is drawn, and how many tokens each draw has; no word is split."""
    random = np.random.default_rng(0)
    starts = np.cumsum([0, *lengths])
    line = np.full(starts[-1] + 2, 7, np.int32)  # pieces ##c
    line[0], line[1:][starts[:-1]], line[-1] = PIECES.cls_id, 5, PIECES.sep_id
    drawn = np.zeros(len(lengths))
    counts = []
    for _ in range(DRAWS):
        positions = draw_mask(line, np.arange(1, len(line) - 1), 0.15, PIECES, random, STARTS, most).positions - 1
        per_word = np.bincount(np.searchsorted(starts, positions, side="right") - 1, minlength=len(lengths))
        assert ((per_word == 0) | (per_word == lengths)).all()
        drawn += per_word > 0
        counts.append(len(positions))
    sizes = np.array(lengths)
    return {length: float(drawn[sizes == length].mean()) / DRAWS for length in set(lengths)}, counts


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        ([1] * 40, 16),
        ([1] * 75 + [2] * 12 + [3] * 4 + [4] * 2 + [7], ROOM),
        ([5] * 25 + [1], ROOM),
        ([3] * 42, ROOM),
        ([1] * 12 + [2] * 3 + [4] + [8], 16),  # a sequence of 32, the longest word is twice the targets
        ([1] * 6 + [6] * 4, 16),
        ([4, 1], 5),
        ([9], 9),
    ],
)
def test_every_token_is_drawn_with_the_same_probability(lengths, most):
    tokens = sum(lengths)
    count = max(1, round(0.15 * tokens))
    found, counts = shares(lengths, most)
    for length, share in found.items():
        # Four standard errors of words that are drawn independently, and what `most` leaves out.
        error = np.sqrt(share * (1 - share) / DRAWS / lengths.count(length))
        assert share == pytest.approx(count / tokens, abs=4 * error + 0.02 * count / tokens), length
    assert max(counts) <= most
    assert np.mean(counts) == pytest.approx(count, rel=0.06)


def test_only_whole_words_have_room_beyond_the_expected_number():
    assert round(0.15 * 126) + 16 == ROOM
    assert MaskedRows(PIECES, 12, 0.15, whole_word=True).most == 10
    assert MaskedRows(PIECES, 128, 0.15).most == round(0.15 * 126)


def test_where_single_pieces_suffice_the_number_of_targets_is_exact():
    _, counts = shares([1] * 40 + [2] * 5, 16)
    assert set(counts) == {round(0.15 * 50)}


def test_a_word_longer_than_the_room_is_never_drawn():
    _, counts = shares([9], 9)
    assert set(counts) == {0, 9}
    _, counts = shares([9], 8)
    assert set(counts) == {0}
