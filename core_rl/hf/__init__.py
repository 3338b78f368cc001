"""What every Hugging Face policy or answerer needs: generation, log-probs, shared prompt."""
