"""What people write today: the whole job with Hugging Face's Trainer, raw files to an evaluated model."""

import argparse
import json

import numpy as np
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("preset", "train", "validation", "test", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--tuned", action="store_true", help="bfloat16, batches of like length, fused AdamW")
    flags = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(flags.preset)
    model = AutoModelForSequenceClassification.from_pretrained(flags.preset, num_labels=2)
    files = {split: getattr(flags, split) for split in ("train", "validation", "test")}
    rows = load_dataset("csv", data_files=files, cache_dir=f"{flags.output}/cache")
    rows = rows.map(lambda batch: tokenizer(batch["sentence"], truncation=True, max_length=96), batched=True)
    tuned = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    settings = TrainingArguments(
        output_dir=flags.output,
        num_train_epochs=flags.epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=2e-4,
        weight_decay=0.01,
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        use_cpu=True,
        **(tuned if flags.tuned else {"optim": "adamw_torch"}),
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        compute_metrics=lambda found: {"accuracy": float(np.mean(found.predictions.argmax(1) == found.label_ids))},
    )
    trained = trainer.train()
    measured = trainer.evaluate(rows["test"])
    print(json.dumps({"accuracy": measured["eval_accuracy"], "train_s": trained.metrics["train_runtime"]}))


if __name__ == "__main__":
    main()
