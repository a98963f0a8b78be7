"""The peer of pretrain.py: Hugging Face's Trainer on the token ids that lmworks made, packed into full sequences."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("gpt", "bert"), required=True)
    parser.add_argument("--sequences", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--output", required=True)
    flags = parser.parse_args()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(flags.sequences / "tokenizer" / "tokenizer.json")
    )
    bert = flags.kind == "bert"
    if bert:
        tokenizer.add_special_tokens(
            {"mask_token": "[MASK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        )
    shards = sorted((flags.sequences / "Split-train").glob("*.arrow"))
    columns = [pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("token_ids") for path in shards]
    stream = np.concatenate([chunk.flatten().to_numpy() for column in columns for chunk in column.chunks])
    rows = stream[: len(stream) // flags.length * flags.length].reshape(-1, flags.length)
    data = [{"input_ids": row.tolist()} for row in rows]
    sizes = {"vocab_size": len(tokenizer)}
    if bert:
        config = transformers.BertConfig(
            **sizes, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
        )
        model = transformers.BertForMaskedLM(config)
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    else:
        config = transformers.GPT2Config(
            **sizes, n_positions=flags.length, n_embd=256, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0
        )
        model = transformers.GPT2LMHeadModel(config)
        collator = _labels_are_inputs
    arguments = transformers.TrainingArguments(
        output_dir=flags.output,
        max_steps=flags.steps,
        per_device_train_batch_size=flags.batch,
        learning_rate=1e-3,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        bf16=True,
        optim="adamw_torch_fused",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=50,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
    began = time.perf_counter()
    result = trainer.train()
    print(json.dumps({"train_s": time.perf_counter() - began, "loss": result.training_loss}))


def _labels_are_inputs(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids}


if __name__ == "__main__":
    main()
