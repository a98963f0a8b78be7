"""What other libraries call our keys: Hugging Face's Trainer and configs, Keras, PyTorch Lightning and papers."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES: Mapping[str, str] = {
    "name": "run_name experiment_name project_name model_id",
    "ingest.train": "train_file train_files train_data train_path train_dataset training_data data dataset dataset_name data_path "
    "input_file",
    "ingest.validation": "validation_file validation_data val val_data val_file dev dev_file eval_file eval_dataset valid",
    "ingest.test": "test_file test_data test_dataset",
    "ingest.text": "text_column text_col text_field sentence content dataset_text_field",
    "ingest.text_b": "text_pair sentence2 second_text text2 premise hypothesis",
    "ingest.label": "label_column label_col target target_column label_field",
    "ingest.labels": "classes class_names label_names label_list num_labels num_classes id2label",
    "ingest.delimiter": "sep",
    "ingest.splits.validation": "validation_split validation_size val_size val_split validation_split_percentage",
    "ingest.splits.test": "test_split test_size",
    "preprocess.sequence_length": "max_length max_len maxlen max_seq_length max_seq_len seq_len seq_length block_size "
    "context_length context_size n_ctx n_positions max_position_embeddings model_max_length max_sequence_length",
    "preprocess.tokenizer.train.vocabulary_size": "vocab_size vocab n_vocab num_tokens",
    "preprocess.tokenizer.train.kind": "tokenizer_type tokenizer_kind",
    "preprocess.tokenizer.train.lowercase": "do_lower_case lower_case uncased",
    "preprocess.chat": "chat_template",
    "preprocess.deduplicate": "dedup deduplication drop_duplicates",
    "model.preset": "model_name_or_path model_name pretrained pretrained_model_name_or_path base_model checkpoint backbone",
    "model.architecture": "model_type arch",
    "model.layers": "num_layers n_layer n_layers num_hidden_layers depth",
    "model.heads": "num_heads n_head n_heads num_attention_heads",
    "model.hidden_dim": "hidden_size n_embd d_model embed_dim embedding_dim model_dim width dim",
    "model.intermediate_dim": "intermediate_size ffn_dim d_ff n_inner ffn_hidden_size feed_forward_dim mlp_dim",
    "model.dropout": "dropout_rate hidden_dropout_prob attention_dropout resid_pdrop",
    "train.epochs": "num_epochs num_train_epochs n_epochs max_epochs epoch",
    "train.steps": "max_steps num_steps num_train_steps total_steps iterations max_iters",
    "train.strategy": "accelerator devices gpus num_gpus n_gpu distribute device",
    "train.backend": "framework keras_backend",
    "train.batch_size": "bs batch per_device_train_batch_size per_gpu_train_batch_size train_batch_size micro_batch_size",
    "train.accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accum gradient_accumulation",
    "train.learning_rate": "lr base_lr max_lr peak_lr initial_learning_rate",
    "train.warmup_ratio": "warmup warmup_steps num_warmup_steps warmup_proportion warmup_fraction warmup_iters",
    "train.schedule": "lr_scheduler lr_scheduler_type scheduler lr_schedule lr_decay",
    "train.weight_decay": "wd l2 decay adam_weight_decay",
    "train.clip_norm": "max_grad_norm gradient_clip_val grad_clip clipnorm global_clipnorm gradient_clipping clip",
    "train.label_smoothing": "label_smoothing_factor smoothing",
    "train.evaluate_every": "eval_steps eval_every eval_interval val_check_interval validation_freq "
    "evaluation_strategy eval_strategy",
    "train.mask_ratio": "mlm_probability mask_prob masking_ratio masked_lm_prob",
    "train.whole_word": "whole_word_mask whole_word_masking wwm",
    "train.precision": "fp16 bf16 mixed_precision amp dtype torch_dtype dtype_policy",
    "train.remat": "gradient_checkpointing recompute_grad activation_checkpointing",
    "train.checkpoint_every": "save_steps save_every save_interval save_freq save_strategy checkpoint_interval",
    "train.keep_checkpoints": "save_total_limit max_to_keep save_top_k",
    "train.seed": "random_seed random_state data_seed",
    "train.monitor": "metric_for_best_model best_metric",
    "train.early_stopping.patience": "early_stopping_patience",
    "train.early_stopping.min_delta": "early_stopping_threshold",
    "evaluate.thresholds": "min_accuracy metrics gate",
    "export.formats": "export_format output_format",
    "export.push_to": "push_to_hub hub_model_id serving_dir model_repository",
    "platform.image": "container_image docker_image base_image",
}
KEY_OF: Mapping[str, str] = {other: key for key, others in _NAMES.items() for other in others.split()}
"""Name elsewhere to the path of our key."""
VALUE_OF: Mapping[str, str] = {
    "tf": "tensorflow", "keras": "tensorflow", "fp32": "float32", "float": "float32", "32": "float32", "bf16": "bfloat16",
    "mixed_bfloat16": "bfloat16", "fp16": "float16", "half": "float16", "mixed_float16": "float16", "ddp": "mirrored",
    "multi_gpu": "mirrored", "classification": "text_classification", "sequence_classification": "text_classification",
    "sentiment": "text_classification", "clm": "causal_lm", "lm": "causal_lm", "language_model": "causal_lm",
    "text_generation": "causal_lm", "mlm": "masked_lm", "fill_mask": "masked_lm", "gpt": "gpt2", "acc": "accuracy",
    "f1": "f1_macro", "val_loss": "loss", "eval_loss": "loss", "val_accuracy": "accuracy", "eval_accuracy": "accuracy",
    "hf": "huggingface", "transformers": "huggingface", "savedmodel": "saved_model", "tf_serving": "saved_model", "byte_bpe": "bpe",
    "bytelevel": "bpe", "word_piece": "wordpiece", "linear_with_warmup": "linear", "cosine_with_warmup": "cosine", "txt": "text",
}  # fmt: skip
"""Value elsewhere to ours, of keys that have a list of values."""
ANSWER_OF: Mapping[str, str] = {
    **dict.fromkeys(
        ("output_dir", "logging_dir", "save_dir", "out_dir", "root"), "the flag --root=FOLDER says where runs are kept"
    ),
    **dict.fromkeys(("optimizer", "optim"), "it is AdamW always"),
    **dict.fromkeys(
        ("resume", "resume_from_checkpoint", "ckpt_path"), "the same command goes on from the last checkpoint by itself"
    ),
}
"""Name elsewhere to what is said of it where no key is the same."""


def snake_case(name: str) -> str:
    """Writes a name as our keys are written: `learningRate` and `learning-rate` become `learning_rate`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(" ", "_")
