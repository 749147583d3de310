"""Training: a GRPO trainer, checkpoints that resume bit for bit, and runs that can be read afterwards."""
