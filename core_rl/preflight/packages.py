"""Check versions of packages, and packages that are installed but broken.

Versions are read from metadata, so nothing heavy is imported.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from core_rl.doctor.findings import Finding, Verdict, finding, skipped


@dataclass(frozen=True)
class Break:
    """A range of versions that is known to break something.

    Attributes:
        package: distribution.
        versions: that break it, e.g. `>=6,<7`.
        verdict: what they do to a run.
        cause: what breaks.
        cure: what to install.
    """

    package: str
    versions: str
    verdict: Verdict
    cause: str
    cure: str


BREAKS = (
    Break(
        "transformers",
        "<4.53",
        Verdict.fail,
        "older than what this project is written for; several clips with num_return_sequences are "
        "scrambled",
        "pip install 'transformers>=5.21'",
    ),
    Break(
        "transformers",
        ">=4.53,<5.21",
        Verdict.fail,
        "older than what this project is written for",
        "pip install 'transformers>=5.21'",
    ),
    Break(
        "transformers",
        ">=6.dev0",
        Verdict.warn,
        "not tried: 6.0 removes calls that 5.x marks as deprecated",
        "pip install 'transformers<6'",
    ),
    Break(
        "torch",
        "<2.13",
        Verdict.fail,
        "older than what this project is written for",
        "pip install 'torch>=2.13'",
    ),
)


def installed(package: str) -> str | None:
    """Version of a distribution; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_findings(version_of: Callable[[str], str | None] = installed) -> list[Finding]:
    """Compare what is installed with what is known to break."""
    found = []
    for package in dict.fromkeys(one.package for one in BREAKS):
        version = version_of(package)
        check = f"environment/{package}"
        if version is None:
            cure = f"pip install {package}"
            found.append(finding(check, None, "installed", False, f"{package} is absent", cure))
            continue
        mine = [one for one in BREAKS if one.package == package]
        bad = [
            one for one in mine if SpecifierSet(one.versions, prereleases=True).contains(version)
        ]
        if bad:
            cause = f"{package} {version}: {bad[0].cause}"
            found.append(Finding(check, None, "known to work", bad[0].verdict, cause, bad[0].cure))
        else:
            found.append(Finding(check, None, f"{version}, no break known", Verdict.ok))
    return found


def package_finding(package: str, extra: str, reason: str) -> Finding:
    """Check that a package that the run asks for is there.

    Args:
        package: module name.
        extra: of this project that brings it; empty = its own name.
        reason: the setting that asks for it.
    """
    there = util.find_spec(package) is not None
    brings = f"'people-focus-rl[{extra}]'" if extra else package
    return finding(
        f"environment/{package}",
        None,
        "installed",
        there,
        f"{reason} asks for {package}, which is not installed",
        f"pip install {brings}, or change {reason.partition('=')[0]}",
    )


def flash_attention_finding(attention: str, has_cuda: bool) -> Finding:
    """Check that FlashAttention, where it is asked for, can run."""
    check = "environment/flash_attention"
    if attention != "flash_attention_2":
        return skipped(check, f"attention is {attention}")
    there = util.find_spec("flash_attn") is not None
    lacking = "flash_attn is not installed" if not there else "there is no CUDA device"
    return finding(
        check,
        None,
        "installed, with CUDA",
        there and has_cuda,
        f"model.attention=flash_attention_2, and {lacking}",
        "model.attention=sdpa, or pip install flash-attn on a CUDA machine",
    )


def soundfile_finding() -> Finding:
    """Check that soundfile, where it is installed, can be imported.

    transformers.audio_utils imports it whenever it finds it; broken, it takes every audio model's
    processor down.
    """
    check = "environment/soundfile"
    if util.find_spec("soundfile") is None:
        return skipped(check, "not installed, not needed")
    try:
        importlib.import_module("soundfile")
    except (ImportError, OSError) as error:
        cause = f"soundfile is installed and broken ({error}): transformers fails to import with it"
        cure = "pip install cffi soundfile (with libsndfile), or pip uninstall soundfile"
        return finding(check, None, "imports", False, cause, cure)
    return Finding(check, None, "imports", Verdict.ok)


def torchvision_finding() -> Finding:
    """Check that torchvision, where it is installed, can load its operators.

    A build for another torch or for CUDA does not, and then transformers and Lightning, which
    import it where they find it, do not import either: it is worse than none.
    """
    check = "environment/torchvision"
    version = installed("torchvision")
    if version is None:
        return skipped(check, "not installed, not needed")
    needs = [Requirement(line) for line in metadata.requires("torchvision") or []]
    wanted = next((one.specifier for one in needs if one.name == "torch"), SpecifierSet())
    torch = installed("torch") or ""
    if not wanted.contains(torch, prereleases=True):
        return finding(
            check,
            None,
            f"made for torch {torch}",
            False,
            f"torchvision {version} was made for torch{wanted}, this is {torch}: its operators do "
            "not load",
            "install the torchvision that belongs to this torch, from the same index, or none",
        )
    done = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return finding(
        check,
        None,
        "loads its operators",
        done.returncode == 0,
        f"torchvision {version} is installed and broken ({last[:120]}): transformers and Lightning "
        "fail to import with it",
        "install the torchvision that belongs to this torch, from the same index, or pip uninstall "
        "torchvision: nothing here needs it",
    )
