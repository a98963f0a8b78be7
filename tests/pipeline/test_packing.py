import numpy as np
import pytest

from lmworks.pipeline.packing import Packing

BORDER = (-1,)


class Table:
    """Documents whose tokens say where they come from."""

    def __init__(self, lengths, all_targets=True):
        self.all_targets = all_targets
        self.lengths = np.array(lengths)
        self.documents = [np.arange(length) + 1000 * (index + 1) for index, length in enumerate(lengths)]

    def tokens(self, document, begin=0, end=None):
        return self.documents[document][begin:end]

    def targets(self, document, begin=0, end=None):
        return np.ones(len(self.tokens(document, begin, end)), bool)


@pytest.mark.parametrize("lengths", [[5, 0, 17, 1, 1, 40], [3], [0, 0], [8, 8, 7, 15]])
@pytest.mark.parametrize("epoch", [None, 0, 1, 2])
@pytest.mark.parametrize("length", [4, 8, 64])
def test_every_token_and_border_stands_in_one_sequence(lengths, epoch, length):
    table = Table(lengths)
    packing = Packing(table.lengths, length, 7, epoch, BORDER)
    assert sorted(packing.sequence_order) == list(range(packing.sequences))
    parts = [packing.read(table, *packing.span(index)) for index in range(packing.sequences)]
    assert all(0 < len(part) <= length for part in parts)
    assert all(len(part) == length for part in parts[1:-1])
    expected = [np.append(table.documents[index], -1) for index in packing.order]
    assert np.concatenate(parts).tolist() == np.concatenate(expected).tolist()


def test_what_stands_before_the_stream_is_a_border():
    table = Table([3, 2])
    packing = Packing(table.lengths, 4, 0, None, BORDER)
    assert packing.read(table, -1, 4).tolist() == [-1, 1000, 1001, 1002, -1]


@pytest.mark.parametrize("lengths", [[5, 0, 17, 1, 1, 40], [3], [0, 0], [8, 8, 7, 15]])
@pytest.mark.parametrize("length", [3, 4, 8, 64])
@pytest.mark.parametrize("epoch", [None, 1])
def test_a_beginning_stands_before_each_document_and_is_no_target(lengths, length, epoch):
    table = Table(lengths)
    packing = Packing(table.lengths, length, 7, epoch, (-1, -2))
    spans = [packing.span(index) for index in range(packing.sequences)]
    expected = np.concatenate([[-2, *table.documents[index], -1] for index in packing.order])
    stream = np.concatenate([packing.read(table, *span) for span in spans])
    assert [-2, *stream] == expected.tolist()
    learnt = np.concatenate([packing.read_targets(table, *span) for span in spans])
    assert learnt.tolist() == [token != -2 for token in stream]
    assert learnt.sum() == sum(lengths) + len(lengths)
    for begin, end in spans:
        assert packing.read(table, begin - 1, end).tolist() == expected[begin : end + 1].tolist()
    chats = Table(lengths, all_targets=False)
    learnt = np.concatenate([packing.read_targets(chats, *span) for span in spans])
    assert learnt.tolist() == [token >= 0 for token in stream], "nothing between conversations is learnt"


def test_the_order_is_a_function_of_seed_and_epoch():
    lengths = np.full(50, 9)
    same, again = Packing(lengths, 16, 1, 3, BORDER), Packing(lengths, 16, 1, 3, BORDER)
    assert same.order.tolist() == again.order.tolist()
    assert same.sequence_order.tolist() == again.sequence_order.tolist()
    for other in (Packing(lengths, 16, 1, 4, BORDER), Packing(lengths, 16, 2, 3, BORDER)):
        assert same.order.tolist() != other.order.tolist()
    assert len({Packing(lengths, 16, 1, epoch, BORDER).offset for epoch in range(20)}) > 5
