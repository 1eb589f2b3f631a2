"""Programs of others that the checks run, where they are found, and what to do when one is missing.

scripts/deploy-tools.sh installs all of them on Debian and Ubuntu. In CI (`CI` is set) a missing one is a
fault; elsewhere its check is skipped with a sentence.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "deploy"
"""What the checks make on the way, out of git."""
SHARED: Final = Path(os.environ.get("CARTWIN_SHARED", ROOT.parent / "shared")).resolve()
"""Folder with the CRDs of the operators and schemas of Terraform's providers."""

KUBECTL: Final = str(Path(sys.prefix) / "bin" / "kubectl")
CHECKOV: Final = str(BUILD / "checkov" / "bin" / "checkov")


def found(program: str) -> str | None:
    """Path of a program, those that scripts/deploy-tools.sh made first."""
    own = BUILD / "bin" / program
    return str(own) if own.exists() else shutil.which(program)
