"""One GPU: BERT-base fine-tuning (length 128) and GPT-2 124M pretraining (length 1,024) in bfloat16, beside Hugging Face's Trainer.

    python tests/benchmarks/gpu.py [--cases gpt2 bert] [--rounds 2] [--backend jax|tensorflow] [--tiny]

The same work on both sides: random token ids, the same architecture, batch and fused AdamW; the Trainer with `torch.compile` and
SDPA. The two alternate, each in a process of its own. What is printed is tokens/s of steady steps, peak memory of the device and the
share of its peak in 16-bit matrix products. It needs JAX (or a TensorFlow that sees the GPU), PyTorch and transformers; of
lmworks it needs keras, keras-hub, pydantic, safetensors and tensorboard, and no TensorFlow with `--backend jax`. lmworks need not be
installed: the folders around this file are used. `--tiny` runs small models on a processor, to see that everything works.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np

REPOSITORY = Path(__file__).parents[2]
CASES = {
    "gpt2": {"vocabulary": 50257, "layers": 12, "heads": 12, "hidden_dim": 768, "intermediate_dim": 3072, "length": 1024, "batch": 16},
    "bert": {"vocabulary": 30522, "layers": 12, "heads": 12, "hidden_dim": 768, "intermediate_dim": 3072, "length": 128, "batch": 64},
}  # fmt: skip
TINY = {"vocabulary": 512, "layers": 2, "heads": 2, "hidden_dim": 32, "intermediate_dim": 64, "length": 32, "batch": 4}
WARM_UP, STEPS = 15, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backend", choices=("jax", "tensorflow"), default="jax")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--side", choices=("lmworks", "trainer"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side:
        sizes = SimpleNamespace(**(TINY if flags.tiny else CASES[flags.cases[0]]))
        side = lmworks if flags.side == "lmworks" else trainer
        print(json.dumps(side(flags.cases[0], sizes, flags)))
        return
    print(f"{'':6}{'':9}{'tokens/s':>12}{'memory GiB':>12}{'of peak':>9}{'lmworks is':>12}")
    for case in flags.cases:
        found: dict[str, list[dict[str, float]]] = {"lmworks": [], "trainer": []}
        for _ in range(flags.rounds):
            for side in found:
                found[side].append(_in_its_own_process(case, side, flags))
        speeds = {side: median(one["tokens_per_second"] for one in rows) for side, rows in found.items()}
        for side, rows in found.items():
            memory = max(one["memory_bytes"] for one in rows) / 2**30
            share = (
                f"{100 * rows[0]['flops_per_token'] * speeds[side] / rows[0]['peak']:.1f} %" if rows[0]["peak"] else ""
            )
            ratio = f"{speeds['lmworks'] / speeds['trainer']:.2f}x" if side == "trainer" else ""
            print(f"{case:6}{side:9}{speeds[side]:12.0f}{memory:12.2f}{share:>9}{ratio:>12}", flush=True)
        sys.path.insert(0, str(Path(__file__).parent))
        from table import add

        add("gpu", f"{case}, beside the Trainer compiled", speeds["lmworks"], speeds["trainer"], "tokens/s")


def _in_its_own_process(case: str, side: str, flags: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, f"--cases={case}", f"--side={side}", f"--backend={flags.backend}"]
    done = subprocess.run(
        [*command, *(["--tiny"] if flags.tiny else [])], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side} failed on {case}; see above")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _tokens(sizes: SimpleNamespace, step: int) -> np.ndarray:
    """int32 [batch, length + 1]."""
    return np.random.default_rng(step).integers(5, sizes.vocabulary, (sizes.batch, sizes.length + 1)).astype(np.int32)


def lmworks(case: str, sizes: SimpleNamespace, flags: argparse.Namespace) -> dict[str, float]:
    """Our engine on our models."""
    os.environ["KERAS_BACKEND"] = flags.backend
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "lmworks"
        package.mkdir()
        for name in ("configs", "models", "tfx", "pipeline"):
            (package / name).symlink_to(REPOSITORY / name)
        sys.path.insert(0, folder)
        return _train(case, sizes, flags)


def _train(case: str, sizes: SimpleNamespace, flags: argparse.Namespace) -> dict[str, float]:
    from lmworks.configs.schema import TrainStage
    from lmworks.models.arithmetic import accelerator, flops_per_token, peak_flops
    from lmworks.pipeline.train.engine import _build

    task, architecture = ("causal_lm", "gpt2") if case == "gpt2" else ("text_classification", "bert")
    names = ("layers", "heads", "hidden_dim", "intermediate_dim")
    model = {"architecture": architecture, "dropout": 0.0, **{name: getattr(sizes, name) for name in names}}
    config = TrainStage.model_validate(
        {"task": task, "model": model, "backend": flags.backend, "batch_size": sizes.batch, "steps": 1000,
         "precision": "float32" if flags.tiny else "bfloat16", "learning_rate": 1e-4}
    )  # fmt: skip
    work, engine = _build(config, lambda config, dtype: _work(case, sizes, config, dtype), config.precision)
    batches = [work.micro_batches(step) for step in range(8)]
    for step in range(WARM_UP):
        engine.step(step, batches[step % 8])
    engine.read()
    began = time.perf_counter()
    for step in range(WARM_UP, WARM_UP + STEPS):
        engine.step(step, batches[step % 8])
    totals = engine.read()
    seconds = time.perf_counter() - began
    assert totals.good_steps == STEPS
    positions = sizes.length if case == "gpt2" else 0
    return {
        "tokens_per_second": STEPS * sizes.batch * sizes.length / seconds,
        "memory_bytes": _memory(flags.backend),
        "flops_per_token": flops_per_token(work.model, sizes.length, positions),
        "peak": peak_flops(accelerator(), config.precision) or 0.0,
    }


def _memory(backend: str) -> int:
    if backend == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if tf.config.list_physical_devices("GPU") else 0


def _work(case: str, sizes: SimpleNamespace, config, dtype: str):
    """The work of a task on random tokens: all but the data is lmworks's own."""
    from lmworks.models import causal_lm, text_classification
    from lmworks.pipeline.train import loop

    pieces = SimpleNamespace(vocabulary_size=sizes.vocabulary, kind="bpe")
    ids = [sizes.batch, sizes.length]

    class Random:
        steps_per_epoch, largest_step = 1000, 0

        def input_specs(self):
            import keras

            inputs = self.inputs(0)
            return {name: keras.InputSpec(shape=ids[: one.ndim], dtype=one.dtype.name) for name, one in inputs.items()}

        def micro_batches(self, step):
            return [loop.MicroBatch(self.inputs(step), float(self.targets), sizes.batch, sizes.batch * sizes.length)]

    class Gpt(Random):
        model = causal_lm.build(config.model, None, pieces, sizes.length, dtype)
        targets = sizes.batch * sizes.length

        def inputs(self, step):
            tokens = _tokens(sizes, step)
            return {"token_ids": tokens[:, :-1], "targets": tokens[:, 1:], "weights": np.ones(ids, np.float32)}

        def loss(self, inputs):
            from lmworks.models.cross_entropy import cross_entropy

            states = causal_lm.states(self.model, inputs["token_ids"], training=True)
            embeddings = causal_lm.output_embeddings(self.model)
            return cross_entropy(states, embeddings, inputs["targets"], inputs["weights"])

    class Bert(Random):
        model = text_classification.build(config.model, None, pieces, 2, dtype)
        targets = sizes.batch

        def inputs(self, step):
            tokens = _tokens(sizes, step)[:, :-1]
            return {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.ones(ids, bool),
                    "labels": tokens[:, 0] % 2, "weights": np.ones(ids[0], np.float32)}  # fmt: skip

        def loss(self, inputs):
            return text_classification.loss(self.model, inputs, 0.0)

    return Gpt() if case == "gpt2" else Bert()


def trainer(case: str, sizes: SimpleNamespace, flags: argparse.Namespace) -> dict[str, float]:
    """Hugging Face's Trainer."""
    import torch
    import transformers

    positions = {"max_position_embeddings": 512} if case == "bert" else {"n_positions": sizes.length}
    if case == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=sizes.vocabulary, n_embd=sizes.hidden_dim, n_layer=sizes.layers, n_head=sizes.heads, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa", bos_token_id=0, eos_token_id=0, **positions,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=sizes.vocabulary, hidden_size=sizes.hidden_dim, num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads, intermediate_size=sizes.intermediate_dim, num_labels=2, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, attn_implementation="sdpa", **positions,
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
    tokens = np.concatenate([_tokens(sizes, step)[:, :-1] for step in range(WARM_UP + STEPS)])
    rows = [{"input_ids": row, "labels": row if case == "gpt2" else int(row[0] % 2)} for row in tokens]
    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step in (WARM_UP, WARM_UP + STEPS):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.perf_counter())

    def collate(rows):
        return {name: torch.from_numpy(np.array([row[name] for row in rows])).long() for name in rows[0]}

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=WARM_UP + STEPS, per_device_train_batch_size=sizes.batch, learning_rate=1e-4,
            weight_decay=0.01, bf16=not flags.tiny, optim="adamw_torch_fused", torch_compile=not flags.tiny, report_to="none",
            save_strategy="no", logging_steps=1000, disable_tqdm=True, use_cpu=flags.tiny, dataloader_num_workers=0 if flags.tiny else 4,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]
        ).train()
    head = sizes.vocabulary * sizes.hidden_dim if case == "bert" else 0
    looked_up = (512 if case == "bert" else sizes.length) * sizes.hidden_dim + (
        2 * sizes.hidden_dim if case == "bert" else 0
    )
    parameters = sum(one.numel() for one in model.parameters()) - head - looked_up
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "tokens_per_second": STEPS * sizes.batch * sizes.length / (times[1] - times[0]),
        "memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "flops_per_token": 6.0 * parameters + 12.0 * sizes.layers * sizes.hidden_dim * sizes.length,
        "peak": 989e12 if "H100" in name or "H200" in name else 312e12 if "A100" in name else 0.0,
    }


if __name__ == "__main__":
    main()
