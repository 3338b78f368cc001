"""One GRPO/RCE loop for every pipeline: query, candidates, rewards, advantages, loss."""
