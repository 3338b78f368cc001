"""The gate's check of any policy, and of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core_rl.doctor.findings import Verdict
from core_rl.run.examine import examine_policy
from core_rl.types import Policy
from tests.core_rl.doctor.test_callback import STRICT
from tests.core_rl.hf.text_policy import build_policy
from tests.core_rl.toy import ToyPolicy


def test_a_language_model_is_examined_more_closely() -> None:
    def checks(policy: Policy, queries: Sequence[Any]) -> set[str]:
        found = examine_policy(policy, queries, 1.0, STRICT)
        assert not any(one.verdict is Verdict.fail for one in found)
        return {one.check for one in found}

    of_any = checks(ToyPolicy(queries=2), [0, 1])
    of_language_models = checks(build_policy(), ["Hello", "Good day"])
    assert of_any and not any(name.startswith("parity/") for name in of_any)
    assert any(name.startswith("parity/") for name in of_language_models)
