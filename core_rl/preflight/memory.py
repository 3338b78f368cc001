"""Memory and disk that a run needs, by a sum that can be checked by hand.

What a device holds all the time, with P parameters of which T train, b bytes each, N devices:

    weights     P b                 and P b / N more under ZeRO 3: a part beside the whole
    gradients   T b                 divided by N under ZeRO 2 and 3
    optimiser   8 T, and 4 T more for the fp32 masters of half-precision weights;
                divided by N under any ZeRO stage, in the machine's memory with offload
    reference   what trains, once more, where KL is weighed and there are no adapters;
                its layers divided by N under ZeRO 3
    buckets     what DeepSpeed collects before it sends, or a copy of the gradients under DDP

On top comes the largest of the parts of a step.  A question has a prompt of M tokens and S tokens
in all its candidates.  A layer keeps so many numbers for each token:

    everything  norms, queries, keys and values, attention's result, and the wide middle four times
    auto        without the wide middle and what one product or function of kept tensors gives
    layers      its input

A norm of half-precision numbers keeps a copy in fp32.  The parts:

    drawing     the prompt's layer inputs, keys and values; the candidates' keys and values; logits
    scoring     the same prompt; what the completions keep; one layer's working space; logits
    backward    the same prompt; gradients of its keys and values; one of its layers in full
    update      gradients once more in fp32, where there are fp32 masters

`benchmarks.plan` compares the sum with measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from core_rl.preflight.shapes import Shapes

GIB = 2**30
TOWER = 1280  # width of the published vision tower
PATCH = 3 * 2 * 14 * 14  # numbers a patch of a video: colours, frames, rows, columns
BUCKETS = 2 * 200_000_000  # numbers, Lightning's defaults for DeepSpeed: to reduce and to gather


@dataclass(frozen=True)
class Plan:
    """What a run does with a model, as memory sees it.

    Attributes:
        trainable: T; None = all.
        weight_bytes: b.
        compute_bytes: of a number in activations, keys and values.
        masters: fp32 copies of half-precision weights in the optimiser.
        zero_stage: 0 without DeepSpeed.
        devices: N.
        offload: optimiser in the machine's memory.
        accumulates: gradients of earlier micro-batches stand while a further one is computed.
        reference: a second copy of what trains.
        questions: side by side on a device.
        candidates: of a question, G.
        prompt: tokens of a prompt, M.
        completion: tokens of a candidate at most.
        shared: the prompt is encoded once for all candidates.
        recompute: `auto`, `layers` or `never`, as `model.recompute`.
        patches: of the media of a question, before the tower merges them.
        logits_at_once: of the output head.
    """

    trainable: int | None = None
    weight_bytes: int = 4
    compute_bytes: int = 4
    masters: bool = False
    zero_stage: int = 0
    devices: int = 1
    offload: bool = False
    accumulates: bool = False
    reference: bool = False
    questions: int = 1
    candidates: int = 1
    prompt: int = 0
    completion: int = 0
    shared: bool = True
    recompute: str = "auto"
    patches: int = 0
    logits_at_once: int = 2**26

    @property
    def scored(self) -> int:
        """Tokens whose log-probs are computed in a micro-batch, S."""
        return self.questions * self.candidates * self.completion

    @property
    def encoded(self) -> int:
        """Tokens of prompts that run through the model."""
        return self.questions * self.prompt * (1 if self.shared else self.candidates)


def device_bytes(shapes: Shapes, plan: Plan) -> dict[str, float]:
    """Bytes on one device at the peak of a step, by what they hold; see the head of this file."""
    always = standing_bytes(shapes, plan)
    parts = step_bytes(shapes, plan)
    return always | parts[peak_of(shapes, plan)]


def peak_of(shapes: Shapes, plan: Plan) -> str:
    """Part of a step that needs most: drawing, scoring, backward or update."""
    parts = step_bytes(shapes, plan)
    return max(parts, key=lambda name: sum(parts[name].values()))


def standing_bytes(shapes: Shapes, plan: Plan) -> dict[str, float]:
    """Bytes on one device between steps."""
    trained = _trained(shapes, plan)
    share = {stage: plan.devices if plan.zero_stage >= stage else 1 for stage in (1, 2, 3)}
    weights = shapes.parameters * plan.weight_bytes
    optimiser = (12 if plan.masters else 8) * trained / share[1]
    buckets = 0.0
    if plan.zero_stage:
        buckets = float(min(BUCKETS, 2 * trained) * plan.weight_bytes)
    elif plan.devices > 1:
        buckets = float(trained * plan.weight_bytes)
    return {
        "weights": weights * (1 + 1 / share[3] if plan.zero_stage == 3 else 1.0),
        "optimiser": 0.0 if plan.offload else optimiser,
        "reference": _reference(shapes, plan) if plan.reference else 0.0,
        "buckets": buckets,
    }


def _reference(shapes: Shapes, plan: Plan) -> float:
    """Under ZeRO 3 its layers are in parts; embeddings and head are whole on every device."""
    trained = _trained(shapes, plan)
    ends = min(trained, 2 * shapes.vocabulary * shapes.hidden)
    devices = plan.devices if plan.zero_stage == 3 else 1
    return (ends + (trained - ends) / devices) * plan.weight_bytes


def step_bytes(shapes: Shapes, plan: Plan) -> dict[str, dict[str, float]]:
    """Bytes that each part of a step adds on one device."""
    size, layers = plan.compute_bytes, shapes.layers
    keys_values = 2 * shapes.kv_width
    everything, cheap_again = _kept_by_layer(shapes, plan)
    hidden, wide = shapes.hidden, shapes.intermediate
    encoded, scored = plan.encoded, plan.scored
    kept = {"never": everything, "auto": cheap_again, "layers": hidden}[plan.recompute]
    again = plan.recompute != "never"
    prompt = size * layers * encoded * (hidden + keys_values if again else everything)
    if size < 4:
        prompt += size * encoded * 3 * hidden  # the first norm of the last layer does not run again
    completions = size * scored * (layers * kept + (5 if size < 4 else 3) * hidden)
    working = {"never": 2 * wide + 2 * hidden, "auto": 6 * wide, "layers": everything + 2 * wide}
    head = min(plan.logits_at_once, scored * shapes.vocabulary)
    gradients = _gradient_bytes(shapes, plan)
    earlier = gradients if plan.accumulates or plan.zero_stage else 0.0
    table = shapes.vocabulary * hidden * plan.weight_bytes if plan.trainable is None else 0
    reference = size * (layers * keys_values * encoded + 4 * hidden * scored) * plan.reference
    rows = plan.questions * plan.candidates
    return {
        "drawing": {
            "gradients": earlier,
            "prompt": float(prompt),
            "candidates' keys and values": float(size * layers * keys_values * scored)
            + size * layers * keys_values * encoded,
            "logits": 12.0 * rows * shapes.vocabulary,
            "media": _media_bytes(plan),
        },
        "scoring": {
            "gradients": earlier + table,
            "prompt": float(prompt),
            "completions": float(completions),
            "working space": float(max(size * scored * working[plan.recompute], reference)),
            "logits": 12.0 * head,
            "media": _media_bytes(plan),
        },
        "backward": {
            "gradients": gradients,
            "prompt": float(prompt + size * layers * keys_values * encoded),
            "working space": float(
                size * encoded * (everything + wide if again else 2 * wide + 2 * hidden)
            ),
            "media": _media_bytes(plan),
        },
        "update": {"gradients": gradients, "working space": _masters_gradients(shapes, plan)},
    }


def _kept_by_layer(shapes: Shapes, plan: Plan) -> tuple[int, int]:
    """Numbers that a layer keeps for a token: everything, and without what is cheap."""
    half = plan.compute_bytes < 4
    attention = 2 * shapes.query_width + 2 * shapes.kv_width
    everything = (8 if half else 6) * shapes.hidden + attention + 4 * shapes.intermediate
    return everything, (6 if half else 2) * shapes.hidden + attention


def _gradient_bytes(shapes: Shapes, plan: Plan) -> float:
    share = plan.devices if plan.zero_stage >= 2 else 1
    return _trained(shapes, plan) * plan.weight_bytes / share


def _masters_gradients(shapes: Shapes, plan: Plan) -> float:
    """Gradients in fp32, as fp32 masters take them."""
    share = plan.devices if plan.zero_stage else 1
    return 4.0 * _trained(shapes, plan) / share if plan.masters else 0.0


def _media_bytes(plan: Plan) -> float:
    """Pixels in fp32, and a layer of a tower that keeps nothing."""
    return plan.patches * (4.0 * PATCH + 12 * TOWER * plan.compute_bytes)


def _trained(shapes: Shapes, plan: Plan) -> int:
    return shapes.language if plan.trainable is None else plan.trainable


def host_bytes(shapes: Shapes, plan: Plan) -> float:
    """Bytes in the machine's memory for offloaded optimisers of all its devices."""
    return 12.0 * _trained(shapes, plan) if plan.offload else 0.0


def checkpoint_bytes(shapes: Shapes, plan: Plan, kept: int) -> float:
    """Bytes on disk: kept policies, the best, the last, and three points to resume from.

    They are the last, the one before, and the next while it is written.
    """
    policies = (kept + 2) * shapes.parameters * plan.weight_bytes
    moments = (12 if plan.masters else 8) * _trained(shapes, plan)
    return float(policies + 3 * (shapes.parameters * plan.weight_bytes + moments))
