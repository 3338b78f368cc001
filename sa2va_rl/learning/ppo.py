"""Step 2: stable-baselines3's PPO learns to choose a prompt for a picture.

No file is unpickled: a run continues from the weights alone (`set_parameters` reads nothing else of
an SB3 archive), and a finished policy is read from safetensors and JSON.  `PPO.load` does unpickle
an archive; use it on your own files only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from core_rl.files import write_json
from core_rl.hardware import prepare
from core_rl.loop.step_guard import leave_out_non_finite
from core_rl.run.callbacks import write_policy
from core_rl.sealed import change
from sa2va_rl.data.features import Standardiser
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.learning.ppo_callbacks import KeepBest, WatchChoices
from sa2va_rl.learning.prompt_env import PromptEnv
from sa2va_rl.policy.prompt_selector import PromptSelector
from sa2va_rl.policy.saved import PromptPolicy, save_policy

log = logging.getLogger(__name__)

ARCHIVE = "ppo.zip"
STATE = "state.json"
PPO_VERSION = 1  # raise when a trained policy changes
LOG_FORMATS = {"tensorboard": ["tensorboard"], "csv": ["csv"], "wandb": ["tensorboard"], "none": []}


def fit_ppo(run: PolicyRun, resume: Path | None = None) -> PromptPolicy:
    """Train from the newest checkpoint of the folder, or from the start; write `final_model`.

    Args:
        run: the `ppo` group, pictures with their scores, and the folder of all output.
        resume: run folder whose newest checkpoint to continue from; None = the run's own.

    Returns:
        The policy with the best validation reward under `ppo.keep_best`, else the last one.

    Raises:
        FileNotFoundError: `resume` holds no checkpoint.
        ValueError: its checkpoint is of another net.
    """
    config = run.settings.ppo
    prepare(run.settings.hardware, run.seed)
    envs = [_maker(run) for _ in range(config.envs)]
    model = _new_model(run, DummyVecEnv(envs))
    leave_out_non_finite(model.policy.optimizer)
    best = KeepBest(_chooser(run, model), run.val, config.env)
    newest = _newest(run.folder) if resume is None else newest_checkpoint(resume)
    done = 0 if newest is None else _restore(model, best, newest)
    formats = LOG_FORMATS[run.settings.logger.kind]
    model.set_logger(configure(str(run.folder / "tensorboard"), formats))
    if done < config.total_steps:
        if done:
            log.info("continuing after %d of %d steps", done, config.total_steps)
        model.learn(
            config.total_steps - done,
            callback=[WatchChoices(run.train, config.env), best, _Checkpoints(run, best)],
            reset_num_timesteps=False,
            progress_bar=run.settings.trainer.progress,
        )
        best.look()  # after the last update
        model.logger.dump(model.num_timesteps)
    if config.keep_best and best.weights:
        model.policy.load_state_dict(best.weights)
    policy = policy_of(model, run.standardiser, run.train.prompts)

    def save(final: Path, _: dict[str, float]) -> None:
        save_policy(policy, final)
        model.save(final / ARCHIVE)

    write_policy(save, run.folder / "final_model", {})
    return policy


def policy_of(model: PPO, standardiser: Standardiser, prompts: Sequence[str]) -> PromptPolicy:
    """Copy PPO's actor, without its critic."""
    actor = model.policy
    layers = (*actor.mlp_extractor.policy_net, actor.action_net)
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    hidden = [layer.out_features for layer in linear[:-1]]
    selector = PromptSelector(linear[0].in_features, len(prompts), hidden)
    copies = [m for m in selector.layers if isinstance(m, torch.nn.Linear)]
    for copy, layer in zip(copies, linear, strict=True):
        copy.load_state_dict(layer.state_dict())
    return PromptPolicy(selector.cpu(), standardiser, tuple(prompts), sees_progress=True)


def _maker(run: PolicyRun) -> Callable[[], gymnasium.Env]:
    return lambda: Monitor(PromptEnv(run.train, run.standardiser, run.settings.ppo.env))


def _new_model(run: PolicyRun, envs: DummyVecEnv) -> PPO:
    config = run.settings.ppo
    hidden = list(config.hidden)
    return PPO(
        "MlpPolicy",
        envs,
        learning_rate=(lambda left: config.lr * left) if config.anneal else config.lr,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy,
        vf_coef=config.value,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": hidden, "vf": hidden},
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.weight_decay, "eps": 1e-5},
        },
        seed=run.seed,
        device="cpu",  # faster for so small a net
    )


def _chooser(run: PolicyRun, model: PPO) -> Callable[[], PromptPolicy]:
    return lambda: policy_of(model, run.standardiser, run.train.prompts)


class _Checkpoints(BaseCallback):
    """Write what a run needs to continue, between two rollouts: SB3 cannot continue within one."""

    def __init__(self, run: PolicyRun, best: KeepBest) -> None:
        super().__init__()
        self.run = run
        self.best = best
        self._next = run.settings.ppo.checkpoint_every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self._next:
            return
        self._next = self.num_timesteps + self.run.settings.ppo.checkpoint_every
        into = self.run.folder / "checkpoints" / f"step-{self.num_timesteps:08d}"
        write_policy(self._write, into, {})

    def _write(self, into: Path, _: dict[str, float]) -> None:
        assert isinstance(self.model, PPO)
        save_policy(policy_of(self.model, self.run.standardiser, self.run.train.prompts), into)
        self.model.save(into / ARCHIVE)
        self.best.save(into)
        write_json(into / STATE, {"steps": self.num_timesteps})


def newest_checkpoint(folder: Path) -> Path:
    """Find the newest complete checkpoint of a run folder.

    Raises:
        FileNotFoundError: it holds none.
    """
    newest = _newest(folder)
    if newest is None:
        raise FileNotFoundError(f"trainer.resume={folder}: no checkpoints/step-*/{STATE} there")
    return newest


def _newest(folder: Path) -> Path | None:
    for state in sorted(folder.glob(f"checkpoints/step-*/{STATE}"), reverse=True):
        wrong = change(state.parent)
        if wrong is None:
            return state.parent
        log.warning("%s is damaged: %s; the one before is looked for", state.parent, wrong)
    return None


def _restore(model: PPO, best: KeepBest, newest: Path) -> int:
    """Load a checkpoint; return its steps."""
    try:
        model.set_parameters(str(newest / ARCHIVE), device="cpu")
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{newest / ARCHIVE} does not fit ppo.hidden: {first}") from error
    best.load(newest)
    steps = int(json.loads((newest / STATE).read_text(encoding="utf-8"))["steps"])
    model.num_timesteps = steps
    # Seeded anew, so that the random numbers of the start are not used again.
    model.set_random_seed(int(np.random.default_rng([model.seed or 0, steps]).integers(2**31)))
    return steps
