"""Training stages: supervision, RL data, RCE, GRPO."""
