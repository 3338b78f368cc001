"""Training: PPO, GRPO, fine-tuning, and their stages."""
