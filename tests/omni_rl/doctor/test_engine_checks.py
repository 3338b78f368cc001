"""Requests to an engine: the flag and the media of the record, or a finding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core_rl.config import DoctorConfig
from core_rl.doctor.findings import Verdict
from omni_rl.config import Blank
from omni_rl.doctor.engine_checks import request_findings
from omni_rl.doctor.gate import gate
from omni_rl.doctor.media_expected import expect
from omni_rl.policy.engine import ChatWriter


def verdicts(chat, expected, together: bool) -> dict[str, Verdict]:
    return {one.check: one.verdict for one in request_findings(chat, expected, together)}


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
def test_requests_are_checked_against_the_record(together: bool, fresh_policy, records) -> None:
    policy = fresh_policy(together=together)
    expected = expect(records[0], policy.processor, policy.config.media, Blank.none)
    chat = ChatWriter(policy.builder)(records[0], (1, 2))
    well = {"engine/flag": Verdict.ok, "engine/items": Verdict.ok}
    assert verdicts(chat, expected, together) == well

    lost = replace(chat, options={})
    found = verdicts(lost, expected, together)
    assert found["engine/flag"] is (Verdict.fail if together else Verdict.ok)

    sound = {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,"}}
    user = dict(chat.messages[-1])
    user["content"] = [sound, *user["content"]]
    twice = replace(chat, messages=[*chat.messages[:-1], user])
    items = request_findings(twice, expected, together)[-1]
    assert items.verdict is Verdict.fail and "fed twice" in items.cause


def test_the_gate_looks_at_requests_where_an_engine_draws(fresh_policy, records) -> None:
    policy = fresh_policy(early=False)
    for engine in (False, True):
        found = gate(Blank.none, engine)(policy, records[:1], 1.0, DoctorConfig(max_new=2))
        names = {one.check for one in found}
        assert ("engine/flag" in names) == engine
        assert not [one for one in found if one.verdict is Verdict.fail]
