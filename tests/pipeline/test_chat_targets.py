"""What a model learns of conversations, counted by hand: the assistant's words and the marks that end them, nothing else."""

import json

import numpy as np
import pytest

from lmworks.configs.schema import Config, TrainStage
from lmworks.models import causal_lm
from lmworks.models.chat import BEGIN, END
from lmworks.models.tokenizer import open_causal_pieces
from lmworks.pipeline.evaluate.language_metrics import Sums, window_row
from lmworks.pipeline.packing import DocumentTable
from lmworks.pipeline.preview import preview
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.language import Causal
from lmworks.pipeline.windows import predictions, windows_of
from tests.models.test_splitting import KINDS, checkpoint
from tests.pipeline.corpora import corpus

LENGTH = 32
ANSWERS = ["Yes.", "It is 12 o'clock", "Ça va?\n\nÉté!", "no"]


def _conversation(number):
    """Two answers, and then the user has the last word in every second one."""
    first, second = ANSWERS[number % 4], ANSWERS[(number // 4) % 4]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Question {number}?"},
        {"role": "assistant", "content": f" {first}\n"},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": second},
    ]
    return [*messages, {"role": "user", "content": f"Thanks {number}"}] if number % 2 else messages, [first, second]


@pytest.fixture(scope="module", params=["gpt2", "marks", "llama3"])
def chats(request, tmp_path_factory):
    """Sequences with marks as plain text, as tokens of their own, and where the last sign takes the line break with it."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {}
    if request.param != "gpt2":
        names = (
            ["<|endoftext|>", BEGIN, END, "<|eot|>"]
            if request.param == "marks"
            else ["<|end|>", "<|begin|>", "<|x|>", "<|y|>"]
        )
        checkpoint(folder / "tokenizer", **KINDS["qwen2" if request.param == "marks" else "llama3"], names=names)
        (folder / "tokenizer" / "config.json").write_text("{}")
        settings = {"preset": str(folder / "tokenizer"), "tokenizer": {}}
    texts = [json.dumps(_conversation(number)[0]) for number in range(60)]
    _, sequences = corpus(folder / "corpus", "causal_lm", LENGTH, texts, chat="chatml", **settings)
    return sequences, request.param


def _by_hand(pieces, answer, marks):
    """Tokens of an answer with its mark: those that begin in it."""
    if marks:
        return len(pieces.encode([answer])[0]) + 1
    (ids,) = pieces.encode([f"{answer}{END}\n"])
    sizes = [len(pieces.token_bytes[index]) for index in ids]
    begins = np.cumsum([0, *sizes[:-1]])
    return int((begins < len(f"{answer}{END}".encode())).sum())


def test_targets_counted_by_hand(chats):
    sequences, kind = chats
    pieces, marks = open_causal_pieces(sequences.path / "tokenizer"), kind == "marks"
    total = {}
    for split in ("train", "validation", "test"):
        table, total[split] = DocumentTable(sequences, split), 0
        for document in range(len(table)):
            tokens, learnt = table.tokens(document), table.targets(document)
            number = next(n for n in range(60) if f"Question {n}?" in pieces.decode(tokens))
            answers = _conversation(number)[1]
            by_hand = sum(_by_hand(pieces, answer, marks) for answer in answers)
            assert learnt.sum() == by_hand
            total[split] += by_hand
            if marks:  # the mark decodes to nothing
                assert pieces.decode(tokens[learnt]) == "".join(answers)
                assert (tokens[learnt] == pieces.vocabulary.index(END)).sum() == len(answers)
            elif kind == "gpt2":
                assert pieces.decode(tokens[learnt]) == "".join(answer + END for answer in answers)
    model = {"architecture": "gpt2", "layers": 1, "heads": 2, "hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0}
    config = TrainStage.model_validate({"task": "causal_lm", "model": model, "precision": "float32", "batch_size": 8})
    built = causal_lm.build(config.model, None, pieces, LENGTH)
    work = Causal(config, built, pieces, sequences)
    batches = [batch for step in range(work.steps_per_epoch) for batch in work.micro_batches(step)]
    assert sum(batch.targets for batch in batches) == total["train"]
    targets = np.concatenate([batch.inputs["targets"][batch.inputs["weights"] > 0] for batch in batches])
    assert pieces.end_id not in targets, "no document's end is learnt"

    table = DocumentTable(sequences, "test")
    windows = [
        window
        for number, size in enumerate(table.lengths)
        for window in windows_of(int(size), LENGTH, 9, number, False)
    ]
    sums = Sums.of(
        window_row(one, table) for one in predictions(causal_lm.log_probabilities(built), table, windows, pieces)
    )
    assert sums.targets.sum() == total["test"]
    assert set(work.validate(0, Curves(None, {}))) == {"loss", "perplexity", "accuracy"}

    shown = Config.model_validate(
        {"name": "x", "task": "causal_lm", "ingest": {"train": "x"}, "model": {"preset": "x"}, "train": {"seed": 0}}
    )
    headings = [line.plain for line in preview(shown, sequences, 10**6) if " of them targets" in line.plain]
    assert (
        sum(int(line.split(" of the epoch, ")[1].split(" of ")[0].replace(",", "")) for line in headings)
        == total["train"]
    )
