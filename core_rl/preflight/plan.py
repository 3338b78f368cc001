"""`plan=true`: what a run will need, before anybody asks for a machine.

Memory is the sum of `core_rl.preflight.memory`.  Time is arithmetic, too: the products of a step
over the peak of a GPU, of which a share is assumed (`UTILISATION`).  Drawing goes token by token
and takes the longer of two times: to read weights and cache from memory, and an assumed time of a
layer's launches (`LAYER_SECONDS`).  Nothing here was measured on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from core_rl.preflight.memory import GIB, Plan, device_bytes, host_bytes, peak_of
from core_rl.preflight.shapes import Shapes, shapes_of

log = logging.getLogger(__name__)

Config = Mapping[Any, Any]

UTILISATION = 0.35  # of a GPU's peak in large products; assumed
BANDWIDTH_SHARE = 0.6  # of its memory's bandwidth; assumed
LAYER_SECONDS = 1e-3  # of a layer for one token of all candidates, launches included; assumed
USABLE = 0.92  # of a device's memory: the rest is the driver's, the library's and holes
MERGED = 4  # patches of a tower that become one token
PIXELS_A_PATCH = 14 * 14
FRAMES_A_PATCH = 2


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        gib: of memory.
        tflops: of dense bf16 products a second.
        tb_s: of memory's bandwidth, TB/s.
    """

    gib: float
    tflops: float
    tb_s: float


GPUS = {
    "A100-40": Gpu(40, 312, 1.56),
    "A100-80": Gpu(80, 312, 2.04),
    "H100": Gpu(80, 989, 3.35),
    "H200": Gpu(141, 989, 4.8),
    "B200": Gpu(180, 2250, 8.0),
    "L40S": Gpu(48, 362, 0.864),
    "RTX4090": Gpu(24, 165, 1.01),
}

# What makes a run smaller, the cheapest first: the override, and the settings that it changes.  The
# last one also shortens what the policy may say.
CURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("model.recompute=layers", {"model.recompute": "layers"}),
    ("rollout=g4", {"rollout.num_generations": 4}),
    ("hardware.offload=true", {"hardware.offload": True}),
    ("model.lora.r=16", {"model.lora.r": 16}),
    ("rollout.max_completion=512", {"rollout.max_completion": 512}),
)


# Half of the published EMER solutions are longer than 512 tokens.
SHORT = "  (512 tokens cut about half of HumanOmniV2's own solutions: watch how many are cut)"


def plan_of(config: Config, shapes: Shapes) -> Plan:
    """Read from the settings of a run what memory depends on."""
    hardware, model = _group(config, "hardware"), _group(config, "model")
    rollout, trainer = _group(config, "rollout"), _group(config, "trainer")
    deepspeed = hardware.get("strategy") == "deepspeed"
    precision = str(hardware.get("precision", "32-true"))
    half = str(model.get("dtype", "float32")) in ("bfloat16", "float16")
    half |= precision in ("bf16-true", "16-true")
    lora = _group(model, "lora")
    rank = int(lora.get("r", 0))
    trainable = None if model.get("freeze_towers", True) else shapes.parameters
    if rank:
        known = shapes.adapters(rank, list(lora.get("target_modules", [])))
        trainable = known or shapes.parameters // 100
    accumulated = int(trainer.get("accumulation", 1))
    return Plan(
        trainable=trainable,
        weight_bytes=2 if half else 4,
        compute_bytes=2 if half or "16" in precision else 4,
        masters=half,
        zero_stage=int(hardware.get("zero_stage", 0)) if deepspeed else 0,
        devices=int(hardware.get("devices", 1)) * int(hardware.get("num_nodes", 1)),
        offload=bool(hardware.get("offload", False)) and deepspeed,
        accumulates=accumulated > 1,
        reference=_kl_weight(config) > 0 and not rank,
        questions=int(trainer.get("batch_size", 1)),
        candidates=int(rollout.get("num_generations", 1)),
        prompt=int(rollout.get("max_prompt", 0)),
        completion=int(rollout.get("max_completion", 0)),
        shared=bool(model.get("shared_prompt", True))
        and not hardware.get("activation_checkpointing", False),
        recompute="layers"
        if hardware.get("activation_checkpointing")
        else str(model.get("recompute", "auto")),
        patches=_patches(_group(model, "media")),
        logits_at_once=2**21 if hardware.get("accelerator", "cpu") == "cpu" else 2**26,
    )


def _patches(media: Config) -> int:
    """Patches of the longest video that the limits allow."""
    frames, pixels = int(media.get("max_frames", 0)), int(media.get("max_pixels", 0))
    return ceil(frames / FRAMES_A_PATCH) * (pixels // PIXELS_A_PATCH)


# -- time ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepCost:
    """What one question costs a device.

    Attributes:
        flops: of the products in encoding, scoring, the reference and the backward pass.
        drawing_flops: of those in drawing.
        drawn_bytes: that drawing reads from memory.
        tokens: drawn at most.
    """

    flops: float
    drawing_flops: float
    drawn_bytes: float
    tokens: int

    def seconds(self, gpu: Gpu, layers: int, steps: int) -> float:
        """Seconds of a question on a GPU; `steps` tokens are drawn one after the other."""
        reading = self.drawn_bytes / (gpu.tb_s * 1e12 * BANDWIDTH_SHARE)
        drawing = max(reading, steps * layers * LAYER_SECONDS)
        return self.flops / (gpu.tflops * 1e12 * UTILISATION) + drawing


def step_cost(shapes: Shapes, plan: Plan) -> StepCost:
    """Count the products of one question, every completion at its limit of length.

    A token takes 2 products for each weight, and 4 for each number of the queries and each token
    that it attends to, in each layer.
    """
    weights = shapes.language - shapes.vocabulary * shapes.hidden  # an embedding multiplies nothing
    attended = 4.0 * shapes.query_width * shapes.layers
    scored = plan.candidates * plan.completion
    copies = 1 if plan.shared else plan.candidates
    encode = copies * plan.prompt * (2.0 * weights + attended * plan.prompt / 2)
    draw = scored * (2.0 * weights + attended * (plan.prompt + plan.completion / 2))
    towers = copies * plan.patches * 2.0 * shapes.towers
    learn = 3 * (encode + draw) + (1 + bool(plan.reference)) * towers
    if plan.recompute != "never":
        learn += encode
    if plan.recompute == "layers":
        learn += draw
    elif plan.recompute == "auto":
        learn += scored * 4.0 * shapes.layers * shapes.hidden * shapes.intermediate
    if plan.reference:
        learn += encode + draw
    cached = 2.0 * shapes.kv_width * shapes.layers * plan.compute_bytes
    rows = plan.candidates * (plan.prompt / plan.candidates + plan.completion / 2)
    read = plan.completion * (weights * plan.weight_bytes + cached * rows)
    return StepCost(learn, draw, read, scored)


# -- what is printed -------------------------------------------------------------------------------


def before_run(config: Config, folder: Path) -> bool:
    """Print the plan and keep it as `plan.txt`, where the settings ask for one.

    Args:
        config: the composed configuration, plain values.
        folder: of the run.

    Returns:
        Whether the run ends here.

    Raises:
        ValueError: no sizes are known for the model, or `hardware.gpu` is not in the table.
    """
    if not config.get("plan", False):
        return False
    text = describe(config)
    log.info("%s", text)
    write_text(folder / "plan.txt", text + "\n")
    return True


def describe(config: Config) -> str:
    """Say what a run needs, whether it fits, and what would make it fit."""
    shapes = known_shapes(_group(config, "model"))
    plan = plan_of(config, shapes)
    name, gpu = known_gpu(_group(config, "hardware"))
    parts, usable = device_bytes(shapes, plan), gpu.gib * USABLE
    lines = [
        f"plan: {plan.devices} x {name} ({gpu.gib:g} GiB, {usable:.0f} usable); "
        f"{plan.candidates} candidates of {plan.completion} tokens after {plan.prompt}",
        _parameters(shapes, plan),
        "",
        f"memory of a device at the peak, which is in {peak_of(shapes, plan)}, GiB",
    ]
    lines += [f"  {what:27}{value / GIB:8.1f}" for what, value in parts.items() if value]
    total = sum(parts.values()) / GIB
    lines.append(f"  {'together':27}{total:8.1f}")
    if plan.offload:
        lines.append(f"  and {host_bytes(shapes, plan) / GIB:.0f} GiB of the machine's memory")
    lines += _verdict(config, shapes, total, usable)
    return "\n".join([*lines, "", *_time(config, shapes, plan, gpu)])


def known_shapes(model: Config) -> Shapes:
    """Sizes of the model, all of them.

    Raises:
        ValueError: they are not known.
    """
    shapes = shapes_of(model)
    if shapes is None or not shapes.layers:
        raise ValueError(
            f"plan=true: the sizes of model.path={model.get('path')} are not known; give "
            "model.path=FOLDER with its config.json and *.safetensors, or a hub id of "
            "core_rl/preflight/shapes.py"
        )
    return shapes


def known_gpu(hardware: Config) -> tuple[str, Gpu]:
    """The GPU that is planned for.

    Raises:
        ValueError: it is not in the table.
    """
    name = str(hardware.get("gpu", "H100"))
    if name not in GPUS:
        raise ValueError(f"hardware.gpu={name}: expected one of {', '.join(GPUS)}")
    return name, GPUS[name]


def fitting(config: Config, shapes: Shapes, usable: float) -> list[str]:
    """Find the cheapest overrides under which a run fits into `usable` GiB; [] if none do."""
    for cure, changes in CURES:
        if _need(_with(config, changes), shapes) <= usable:
            return [cure]
    together: Config = config
    taken: list[str] = []
    for cure, changes in CURES:
        changed = _with(together, changes)
        if _need(changed, shapes) < _need(together, shapes):
            together, taken = changed, [*taken, cure]
        if _need(together, shapes) <= usable:
            return taken
    return []


def _need(config: Config, shapes: Shapes) -> float:
    return sum(device_bytes(shapes, plan_of(config, shapes)).values()) / GIB


def _with(config: Config, changes: Mapping[str, Any]) -> Config:
    changed = deepcopy(dict(config))
    for key, value in changes.items():
        *groups, name = key.split(".")
        node = changed
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return changed


def _parameters(shapes: Shapes, plan: Plan) -> str:
    trained = shapes.language if plan.trainable is None else plan.trainable
    return (
        f"{shapes.parameters / 1e9:.2f} billion parameters ({shapes.language / 1e9:.2f} language, "
        f"{shapes.towers / 1e9:.2f} towers), of which {trained / 1e9:.3f} billion train"
    )


def _verdict(config: Config, shapes: Shapes, total: float, usable: float) -> list[str]:
    if total <= usable:
        return [f"  fits, {usable - total:.0f} GiB to spare"]
    cures = fitting(config, shapes, usable)
    if cures:
        found = [f"  does not fit by {total - usable:.0f} GiB; it does with {' '.join(cures)}"]
        return [*found, SHORT] if CURES[-1][0] in cures else found
    return [f"  does not fit by {total - usable:.0f} GiB, nor with any of these overrides together"]


def _time(config: Config, shapes: Shapes, plan: Plan, gpu: Gpu) -> list[str]:
    cost = step_cost(shapes, plan)
    seconds = cost.seconds(gpu, shapes.layers, plan.completion)
    half = step_cost(shapes, replace(plan, completion=plan.completion // 2))
    shorter = half.seconds(gpu, shapes.layers, plan.completion // 2)
    lines = [
        f"a question: {cost.tokens} tokens drawn, {(cost.flops + cost.drawing_flops) / 1e12:.0f} "
        f"TFLOP, {seconds:.0f} s with completions at their limit, {shorter:.0f} s at half of it",
        f"  (by the data sheet; {UTILISATION:.0%} of the peak and {LAYER_SECONDS * 1e3:g} ms a "
        "layer and token are assumed, nothing was measured)",
    ]
    questions = _questions(config, plan)
    if questions:
        hours = [questions / plan.devices * one / 3600 for one in (shorter, seconds)]
        lines.append(
            f"the run: {questions} questions on {plan.devices} devices, "
            f"{hours[0]:.1f} to {hours[1]:.1f} hours, without evaluation"
        )
    return lines


def _questions(config: Config, plan: Plan) -> int:
    """Questions that the run draws for; 0 where the settings do not tell."""
    trainer = _group(config, "trainer")
    if trainer.get("max_steps"):
        step = plan.questions * plan.devices * int(trainer.get("accumulation", 1))
        return int(trainer["max_steps"]) * step
    return int(float(trainer.get("epochs", 1)) * int(_group(config, "data_mix").get("size") or 0))


def _kl_weight(config: Config) -> float:
    return float(_group(_group(config, "loss"), "kl").get("weight", 0.0))


def _group(config: Config, name: str) -> Config:
    node = config.get(name)
    return node if isinstance(node, Mapping) else {}
