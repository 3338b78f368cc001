"""Train the reward network, keep the epoch that ranks best inside held-out pictures.

Differs from the published run: masks of every prompt instead of one, spoiled masks beside them, a
held-out split, and the epoch chosen by rank inside a picture instead of by training loss.
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

from core_rl.config import HardwareConfig, LoggerConfig, TrainerConfig
from core_rl.hardware import prepare
from core_rl.loop.optim import build_optimizer
from core_rl.run.fit import build_logger, quieten_lightning
from core_rl.run.strategies import trainer_kwargs
from sa2va_rl.config import RewardNetConfig
from sa2va_rl.data.files import Sample
from sa2va_rl.rewards.reward_metrics import judge_metrics, probe_table
from sa2va_rl.rewards.reward_net import RewardNet, covered, flattened
from sa2va_rl.rewards.reward_pairs import Pair, probe_pairs, prompt_pairs
from sa2va_rl.rewards.verdicts import Masks

log = logging.getLogger(__name__)

CHOSEN_BY = "within_image_spearman"


class PairSet(Dataset[tuple[Tensor, Tensor]]):
    """Pairs at the network's size: a picture once, a byte for each pixel of a mask.

    Args:
        samples: the pictures that pairs point to.
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
        """Return a pair 2SS and its label, or for places N pairs N2SS and labels N."""
        flat = self.flat_PSS[self.pictures_N[index]]
        pairs = torch.stack([flat, self.masks_NSS[index] / 255.0], dim=-3)
        return pairs, self.labels_N[index]

    def batches(self, size: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
        """Load `size` pairs at a time, gathered at once."""
        order = RandomSampler(self) if shuffle else SequentialSampler(self)
        return DataLoader(self, sampler=BatchSampler(order, size, False), batch_size=None)


class RewardNetModule(L.LightningModule):
    """Regress the label; measure order inside held-out pictures after each epoch.

    Args:
        net: the network, changed in place.
        trainer_config: learning rate and weight decay.
        num_prompts: masks of each held-out picture, which come in that order.

    Attributes:
        best: weights of the epoch that did best; `best_score` is its `CHOSEN_BY`.
    """

    def __init__(self, net: RewardNet, trainer_config: TrainerConfig, num_prompts: int) -> None:
        super().__init__()
        self.net = net
        self.trainer_config = trainer_config
        self.num_prompts = num_prompts
        self.best: dict[str, Tensor] = {}
        self.best_score = -math.inf
        self._held_out: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        pairs_N2SS, labels_N = batch
        loss = F.mse_loss(self.net(_turned(pairs_N2SS)).sigmoid(), labels_N)
        self.log("train/loss", loss, prog_bar=True)
        return loss

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
        # Where no held-out picture can be ranked the first epoch would stay: take the last instead.
        score = metrics[CHOSEN_BY]
        if math.isnan(score) or score > self.best_score:
            self.best, self.best_score = copy.deepcopy(self.net.state_dict()), score

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config = self.trainer_config
        optimizer = build_optimizer(self.net, config.lr, config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _turned(pairs_N2SS: Tensor) -> Tensor:
    """Mirror and turn a batch at random: quality has no up or left."""
    for axis in (2, 3):
        if torch.rand(()) < 0.5:
            pairs_N2SS = pairs_N2SS.flip(axis)
    return pairs_N2SS.transpose(2, 3) if torch.rand(()) < 0.5 else pairs_N2SS


@dataclass(frozen=True)
class Fitted:
    """A trained network and what it does on held-out pictures.

    Attributes:
        net: the best epoch's.
        metrics: of `judge_metrics`, and `probe/<kind>` with `probe_label/<kind>`.
    """

    net: RewardNet
    metrics: dict[str, float]


def fit_reward_net(
    train: Sequence[Sample],
    val: Sequence[Sample],
    prompts: Sequence[str],
    masks: Masks,
    config: RewardNetConfig,
    trainer: TrainerConfig,
    hardware: HardwareConfig,
    seed: int = 0,
    folder: Path | None = None,
    logger: LoggerConfig | None = None,
) -> Fitted:
    """Train on some pictures, choose the epoch by others of other groups.

    Args:
        train: pictures with truths.
        val: likewise; they choose the epoch, so report on a third set with `evaluate_reward_net`.
        prompts: whose masks are learnt from.
        masks: where they come from.
        config: shape and label.
        trainer: `lr`, `epochs`, `max_steps`, `batch_size`, `weight_decay`, `grad_clip`, `progress`.
        hardware: on what.
        seed: of weights, order and spoiled masks.
        folder: where curves go; None = nowhere.
        logger: in which form.

    Raises:
        ValueError: a picture without truth, or a group on both sides.
    """
    shared = {sample.group for sample in train} & {sample.group for sample in val}
    if shared:
        raise ValueError(f"groups {sorted(shared)[:3]} are in training and validation: split anew")
    quieten_lightning()
    prepare(hardware, seed)
    learnt = [*prompt_pairs(train, prompts, masks, config.label)]
    learnt += probe_pairs(train, config.label, seed)
    learn_set = PairSet(train, learnt, config.side)
    held_set = PairSet(val, prompt_pairs(val, prompts, masks, config.label), config.side)
    module = RewardNetModule(RewardNet(config), trainer, len(prompts))
    L.Trainer(
        **trainer_kwargs(hardware),
        max_epochs=math.ceil(trainer.epochs),
        max_steps=-1 if trainer.max_steps is None else trainer.max_steps,
        gradient_clip_val=trainer.grad_clip,
        enable_progress_bar=trainer.progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=build_logger(logger, folder) if folder and logger else False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
    ).fit(
        module,
        learn_set.batches(trainer.batch_size, shuffle=True),
        held_set.batches(trainer.batch_size),
    )
    if module.best:  # empty where `max_steps` ended before the first validation
        module.net.load_state_dict(module.best)
    net = module.net.cpu().eval()
    metrics = evaluate_reward_net(net, val, prompts, masks, seed)
    log.info("reward network: %s %.3f on validation", CHOSEN_BY, metrics[CHOSEN_BY])
    return Fitted(net, metrics)


def evaluate_reward_net(
    net: RewardNet, samples: Sequence[Sample], prompts: Sequence[str], masks: Masks, seed: int = 0
) -> dict[str, float]:
    """Measure a network on pictures: `judge_metrics` over prompts, mean scores of spoiled masks."""
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
