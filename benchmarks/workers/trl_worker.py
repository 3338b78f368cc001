"""Train with TRL's GRPOTrainer, a step for each line on standard input; see `benchmarks.speed`.

Runs in an environment of its own.  Its settings are the quickest that its configuration offers on
a CPU: no reference model unless the KL term is asked for, no pass for old log-probs (one update a
rollout), no activation checkpointing, no reports, no half precision (slower on a CPU without
matrix instructions for it).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.text_model import prompts
from benchmarks.workers.worker import Gate, vowels


class Steps(TrainerCallback):
    """A step begins when asked for and is reported when done."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.gate.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.gate.report()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=json.loads)
    settings = parser.parse_args().settings
    torch.set_num_threads(settings["threads"])
    gate = Gate(settings["device"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="left")
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=settings["device"] == "cpu",
            bf16=False,
            per_device_train_batch_size=settings["group"],
            num_generations=settings["group"],
            max_completion_length=settings["completion"],
            beta=settings["kl"],
            learning_rate=1e-5,
            max_steps=1000,
            num_iterations=1,
            steps_per_generation=1,
            optim="adamw_torch",
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_num_workers=0,
            cache_implementation=settings.get("cache"),
            # Every completion runs to the limit, on both sides.
            generation_kwargs={"suppress_tokens": [tokenizer.eos_token_id]},
            **settings.get("trl", {}),
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [vowels(text) for text in completions],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts(settings["prompt"])}),
            processing_class=tokenizer,
            callbacks=[Steps(gate)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
