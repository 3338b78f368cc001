"""Train the pointer's heads alone in GRPO phases: the published option to freeze the backbone."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback

from core_rl.config import PhaseKind
from core_rl.loop.module import GroupPolicyModule
from lever.policy.selectors import PointerSelector


class FreezeBackbone(Callback):
    """Let the projection and the attention blocks of a pointer rest while a GRPO phase runs.

    Raises:
        ValueError: the selector is no pointer, so there is nothing to freeze.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _pointer(pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        learns = pl_module.phase.config.kind is not PhaseKind.grpo
        policy = _pointer(pl_module)
        for part in (policy.project, policy.blocks):
            part.requires_grad_(learns)


def _pointer(pl_module: L.LightningModule) -> PointerSelector:
    assert isinstance(pl_module, GroupPolicyModule)
    policy = pl_module.policy
    if not isinstance(policy, PointerSelector):
        raise ValueError(
            f"learn.freeze_backbone_in_grpo=true: {type(policy).__name__} has no backbone: "
            "expected model=lever_pointer"
        )
    return policy
