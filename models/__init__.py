"""What is trained? Presets, tokenizers, and one file per task on KerasHub."""
