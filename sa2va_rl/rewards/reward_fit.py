"""Train the reward network and keep the epoch that ranks the masks of held-out pictures best.

Differences from the published run: masks of every prompt instead of one, corrupted masks, a
held-out split, and the epoch is chosen by rank correlation within a picture, not by training loss.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
)

from core_rl.hardware import prepare
from core_rl.loop.optim import build_optimizer
from core_rl.loop.step_guard import drop_non_finite
from core_rl.run.fit import build_logger, quieten_lightning
from core_rl.run.strategies import trainer_kwargs
from sa2va_rl.config import RewardFitConfig
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.rewards.reward_metrics import judge_metrics, probe_table
from sa2va_rl.rewards.reward_net import RewardNet, covered, flattened
from sa2va_rl.rewards.reward_pairs import Pair, probe_pairs, prompt_pairs
from sa2va_rl.rewards.verdicts import Masks
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

CHOSEN_BY = "within_image_spearman"


class PairSet(Dataset[tuple[Tensor, Tensor]]):
    """Pairs at the network's size: each picture once, and a byte for each pixel of a mask.

    Args:
        samples: the pictures to which `Pair.picture` refers.
        pairs: masks with labels; read once.
        side: of the network's input, in pixels.
    """

    def __init__(self, samples: Sequence[Sample], pairs: Iterable[Pair], side: int) -> None:
        masks, pictures, kinds, labels = [], [], [], []
        for pair in pairs:
            [cover_SS] = covered([pair.mask_HW], side)
            masks.append((cover_SS * 255).round().to(torch.uint8))
            pictures.append(pair.picture)
            kinds.append(pair.kind)
            labels.append(pair.label)
        self.flat_PSS = torch.stack([flattened(sample.image_HWC, side) for sample in samples])
        self.masks_NSS = torch.stack(masks)
        self.pictures_N = torch.tensor(pictures)
        self.kinds = kinds
        self.labels_N = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        """Return a pair 2SS and its label, or for N indices pairs N2SS and labels N."""
        flat = self.flat_PSS[self.pictures_N[index]]
        pairs = torch.stack([flat, self.masks_NSS[index] / 255.0], dim=-3)
        return pairs, self.labels_N[index]

    def batches(self, size: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return a loader of `size` pairs a batch, one indexing operation each."""
        order = RandomSampler(self) if shuffle else SequentialSampler(self)
        return DataLoader(self, sampler=BatchSampler(order, size, False), batch_size=None)


class RewardNetModule(L.LightningModule):
    """Regress the label; measure the rank correlation in held-out pictures after each epoch.

    Args:
        net: the network, changed in place.
        config: learning rate and weight decay.
        num_prompts: number of masks of each held-out picture, which are consecutive.

    Attributes:
        best: weights of the best epoch; `best_score` is its `CHOSEN_BY`.
    """

    def __init__(self, net: RewardNet, config: RewardFitConfig, num_prompts: int) -> None:
        super().__init__()
        self.net = net
        self.config = config
        self.num_prompts = num_prompts
        self.best: dict[str, Tensor] = {}
        self.best_score = -math.inf
        self._held_out: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        pairs_N2SS, labels_N = batch
        loss = F.mse_loss(self.net(_turned(pairs_N2SS)).sigmoid(), labels_N)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        drop_non_finite(self.net.parameters())

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        pairs_N2SS, labels_N = batch
        self._held_out.append((self.net.quality(pairs_N2SS).cpu(), labels_N.cpu()))

    def on_validation_epoch_end(self) -> None:
        scores, labels = (
            torch.cat(part).double().numpy() for part in zip(*self._held_out, strict=True)
        )
        self._held_out.clear()
        metrics = judge_metrics(
            scores.reshape(-1, self.num_prompts), labels.reshape(-1, self.num_prompts)
        )
        self.log_dict({f"val/{name}": value for name, value in metrics.items()})
        # The score is NaN if no held-out picture can be ranked: then keep the last epoch.
        score = metrics[CHOSEN_BY]
        if math.isnan(score) or score > self.best_score:
            self.best, self.best_score = copy.deepcopy(self.net.state_dict()), score

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = build_optimizer(self.net, self.config.lr, self.config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.config.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _turned(pairs_N2SS: Tensor) -> Tensor:
    """Flip and transpose a batch at random, which leaves the quality unchanged."""
    for axis in (2, 3):
        if torch.rand(()) < 0.5:
            pairs_N2SS = pairs_N2SS.flip(axis)
    return pairs_N2SS.transpose(2, 3) if torch.rand(()) < 0.5 else pairs_N2SS


@dataclass(frozen=True)
class Fitted:
    """A trained network and its metrics on validation pictures.

    Attributes:
        net: with the weights of the best epoch.
        metrics: of `evaluate_reward_net`.
    """

    net: RewardNet
    metrics: dict[str, float]


def fit_reward_net(
    settings: Settings, splits: Splits, masks: Masks, seed: int, folder: Path | None = None
) -> Fitted:
    """Train on the training pictures; validation pictures choose the epoch.

    Args:
        settings: of the run; `reward_net`, `reward_fit`, `hardware`, `logger` and, of the trainer,
            `grad_clip` and `progress` are used.
        splits: every training and validation picture has a true mask; test is not read.
        masks: makes or reads the masks of every prompt.
        seed: of weights, order and corrupted masks.
        folder: of the curves; None = none are written.

    Raises:
        ValueError: a picture without a true mask, or a group in both splits.
    """
    train, val, fit = splits.train, splits.val, settings.reward_fit
    shared = {sample.group for sample in train} & {sample.group for sample in val}
    if shared:
        raise ValueError(f"groups {sorted(shared)[:3]} are in training and validation: split anew")
    quieten_lightning()
    prepare(settings.hardware, seed)
    config, prompts = settings.reward_net, settings.prompts
    learnt = [*prompt_pairs(train, prompts, masks, config.label)]
    learnt += probe_pairs(train, config.label, seed)
    learn_set = PairSet(train, learnt, config.side)
    held_set = PairSet(val, prompt_pairs(val, prompts, masks, config.label), config.side)
    module = RewardNetModule(RewardNet(config), fit, len(prompts))
    L.Trainer(
        **trainer_kwargs(settings.hardware),
        max_epochs=fit.epochs,
        gradient_clip_val=settings.trainer.grad_clip,
        enable_progress_bar=settings.trainer.progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=build_logger(settings.logger, folder) if folder else False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
    ).fit(
        module,
        learn_set.batches(fit.batch_size, shuffle=True),
        held_set.batches(fit.batch_size),
    )
    module.net.load_state_dict(module.best)
    net = module.net.cpu().eval()
    metrics = evaluate_reward_net(net, val, prompts, masks, seed)
    log.info("reward network: %s %.3f on validation", CHOSEN_BY, metrics[CHOSEN_BY])
    return Fitted(net, metrics)


def evaluate_reward_net(
    net: RewardNet, samples: Sequence[Sample], prompts: Sequence[str], masks: Masks, seed: int = 0
) -> dict[str, float]:
    """Measure a network on pictures with true masks.

    Returns:
        `judge_metrics` of the prompts' masks; for true, corrupted and foreign masks the mean score
        `probe/<kind>` and the mean label `probe_label/<kind>`.
    """
    config = net.config
    chosen = PairSet(samples, prompt_pairs(samples, prompts, masks, config.label), config.side)
    shape = len(samples), len(prompts)
    metrics = judge_metrics(
        _scores(net, chosen).reshape(shape), chosen.labels_N.double().numpy().reshape(shape)
    )
    probes = PairSet(samples, probe_pairs(samples, config.label, seed), config.side)
    table = probe_table(_scores(net, probes).tolist(), probes.labels_N.tolist(), probes.kinds)
    for kind, (score, label) in table.items():
        metrics |= {f"probe/{kind}": score, f"probe_label/{kind}": label}
    return metrics


@torch.no_grad()
def _scores(net: RewardNet, pairs: PairSet) -> np.ndarray:
    batches = [net.quality(inputs_N2SS) for inputs_N2SS, _ in pairs.batches(64)]
    return torch.cat(batches).double().numpy()
