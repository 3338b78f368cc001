"""What a configuration needs, against what there is."""

from __future__ import annotations

import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from core_rl.doctor.findings import Finding, UnhealthyError, Verdict
from core_rl.preflight import packages as environment
from core_rl.preflight.checks import (
    before_run,
    file_findings,
    input_files,
    preflight,
    resource_findings,
)
from core_rl.preflight.memory import GIB


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in found}


# -- versions and packages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("4.52.0", Verdict.fail),
        ("4.53.3", Verdict.fail),
        ("4.57.3", Verdict.fail),
        ("5.20.2", Verdict.fail),
        ("5.21.0", Verdict.ok),
        ("5.23.0", Verdict.ok),
        ("6.0.0.dev0", Verdict.warn),
    ],
)
def test_versions_that_break_are_known(version: str, verdict: Verdict) -> None:
    versions = {"transformers": version, "torch": "2.13.0+cpu"}
    found = by_check(environment.version_findings(versions.get))
    assert found["environment/transformers"].verdict is verdict
    assert found["environment/torch"].verdict is Verdict.ok


def test_the_oldest_versions_are_those_that_are_declared() -> None:
    """Nothing older than pyproject.toml asks for is called well, nothing from there on broken."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    declared = [Requirement(line) for line in project["dependencies"]]
    for package in {one.package for one in environment.BREAKS}:
        (least,) = (one.specifier for one in declared if one.name == package)
        (oldest,) = (part.version for part in least if part.operator == ">=")
        older = f"{Version(oldest).major}.{Version(oldest).minor - 1}.9"
        for version, verdict in ((oldest, Verdict.ok), (older, Verdict.fail)):
            versions = {"transformers": "5.23.0", "torch": "2.13.0", package: version}
            found = by_check(environment.version_findings(versions.get))
            assert found[f"environment/{package}"].verdict is verdict


def test_an_absent_package_is_a_failure_and_this_environment_is_well() -> None:
    assert all(one.verdict is Verdict.fail for one in environment.version_findings(lambda _: None))
    assert not [one for one in environment.version_findings() if one.verdict is Verdict.fail]


def package(root: Path, name: str, source: str, version: str, requires: str = "") -> None:
    """Lay a package with its metadata into a folder."""
    (root / name).mkdir(parents=True)
    (root / name / "__init__.py").write_text(source)
    info = root / f"{name}-{version}.dist-info"
    info.mkdir()
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    )


BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


@pytest.mark.parametrize(
    ("source", "requires", "healthy", "said"),
    [
        ("", "torch (=={torch})", True, ""),
        (BROKEN, "torch (=={torch})", False, "operator torchvision::nms does not exist"),
        ("", "torch==1.0.0", False, "made for torch==1.0.0"),
    ],
)
def test_a_torchvision_without_operators_is_worse_than_none(
    source: str,
    requires: str,
    healthy: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = torch.__version__.partition("+")[0]
    package(tmp_path, "torchvision", source, "0.1", requires.format(torch=own))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    one = environment.torchvision_finding()
    assert (one.verdict is Verdict.ok) == healthy
    assert said in one.cause


def test_a_broken_soundfile_is_told_from_an_absent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "soundfile", "raise OSError('sndfile library not found')\n", "0.12")
    monkeypatch.syspath_prepend(str(tmp_path))
    one = environment.soundfile_finding()
    assert one.verdict is Verdict.fail and "sndfile library not found" in one.cause


def test_what_settings_ask_for_and_is_absent_is_named_with_the_setting() -> None:
    config: dict[str, Any] = {
        "hardware": {"accelerator": "gpu", "devices": 4096, "strategy": "deepspeed"},
        "model": {"attention": "flash_attention_2", "lora": {"r": 16}},
    }
    found = by_check(preflight(config, thorough=False))
    assert found["environment/devices"].verdict is Verdict.fail
    assert "hardware.devices=4096" in found["environment/devices"].cause
    absent = environment.package_finding("no_such_package", "deepspeed", "hardware.strategy=x")
    assert absent.verdict is Verdict.fail
    assert absent.cure == "pip install 'people-focus-rl[deepspeed]', or change hardware.strategy"
    flash = environment.flash_attention_finding("flash_attention_2", has_cuda=False)
    assert flash.verdict is Verdict.fail and "model.attention=sdpa" in flash.cure


# -- files -----------------------------------------------------------------------------------------


def test_fields_that_name_files_are_found_wherever_they_stand(tmp_path: Path) -> None:
    config = {
        "task": {"model": {"path": "/never/asked"}},
        "model": {"name": "a/b", "path": "org/model", "system_prompt": "Say /this/ now."},
        "data_mix": {"sources": {"one": {"path": "one.yaml"}}, "masks": "/data/masks"},
        "answerer": {"url": "http://host/v1", "cache": "/made/cache.sqlite"},
        "files": {"pictures": "", "name": "COCO_{image_id:012d}.jpg"},
        "paths": {"output": "/made/by/the/run", "data": None},
    }
    assert dict(input_files(config)) == {
        "model.path": "org/model",
        "data_mix.sources.one.path": "one.yaml",
        "data_mix.masks": "/data/masks",
    }


def test_files_are_looked_for_under_the_data_folder_too(tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text("[]")
    config = {
        "paths": {"data": str(tmp_path)},
        "data_mix": {"val_path": "val.json", "test_path": "intentbench/qa.json"},
    }
    found = by_check(file_findings(config))
    assert found["files/data_mix.val_path"].verdict is Verdict.ok
    missing = found["files/data_mix.test_path"]
    assert missing.verdict is Verdict.fail
    assert "data_mix.test_path=intentbench/qa.json" in missing.cause
    assert str(tmp_path) in missing.cure


@pytest.mark.parametrize(("offline", "verdict"), [("1", Verdict.fail), ("", Verdict.warn)])
def test_a_hub_id_fails_only_where_nothing_can_be_loaded(
    offline: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    found = file_findings({"model": {"path": "nobody/no-such-model-7B"}})
    assert [one.verdict for one in found] == [verdict]


# -- memory and disk -------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_told_with_its_parts() -> None:
    config = {"model": {"path": "somebody/huge-70000B"}, "hardware": {"accelerator": "cpu"}}
    found = by_check(resource_findings(config))
    memory = found["resources/memory"]
    assert memory.verdict is Verdict.fail and memory.figure is not None
    assert memory.figure == pytest.approx(70000e9 * 16 / GIB)
    assert "weights" in memory.cause and "hardware=gpu8_zero2" in memory.cure
    assert found["resources/disk"].verdict is Verdict.fail


# -- before a run ----------------------------------------------------------------------------------


def test_only_looking_writes_the_table_and_stops(tmp_path: Path) -> None:
    good: dict[str, Any] = {"preflight": "only"}
    assert before_run(good, tmp_path) is True
    assert "environment/torch" in (tmp_path / "preflight.txt").read_text()
    bad = good | {"data_mix": {"path": "/no/such/file.json"}}
    with pytest.raises(UnhealthyError, match=r"/no/such/file\.json"):
        before_run(bad, tmp_path)
    kept = json.loads((tmp_path / "health.json").read_text())["rounds"][0]["findings"]
    assert "FAIL" in {one["verdict"] for one in kept}


def test_a_run_is_warned_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = {"data_mix": {"path": "/no/such/file.json"}}
    with caplog.at_level(logging.WARNING):
        assert before_run(bad, tmp_path) is False
    assert "/no/such/file.json" in caplog.text
    caplog.clear()
    assert before_run(bad | {"preflight": "off"}, tmp_path) is False
    assert not caplog.text
