"""Training: the start, supervision, the policy by reward."""
