"""An environment with TRL beside this project's own, which it borrows torch from."""

from __future__ import annotations

import logging
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

log = logging.getLogger(__name__)

TRL = "trl==1.16.*"


def trl_python(folder: Path) -> Path:
    """Return the Python of `folder`/trl-env, made on the first call.

    Packages that this project has are found through a path file and not installed again.

    Raises:
        RuntimeError: pip could not install TRL.
    """
    home = folder / "trl-env"
    python = home / "bin" / "python"
    if (home / ".installed").exists():
        return python
    log.info("installing %s into %s", TRL, home)
    venv.create(home, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    (packages / "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    done = subprocess.run([str(python), "-m", "pip", "install", "-q", TRL], check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install {TRL} into {home}; delete it and try again")
    (home / ".installed").touch()
    return python
