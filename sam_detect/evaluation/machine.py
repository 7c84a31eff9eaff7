"""What a measurement was made on: the machine, the commit, the versions.

Nothing here names its owner: no host name, no user, no path.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import sam_detect

PACKAGES = (
    "numpy",
    "opencv-python",
    "scikit-image",
    "scipy",
    "qdrant-edge-py",
    "qdrant-client",
    "torch",
    "open-clip-torch",
    "sam2",
)
CHECKOUT = Path(sam_detect.__file__).resolve().parents[1]
MEASURING = ("sam_detect", "scripts/dev/bench")
CGROUP = Path("/sys/fs/cgroup")
COMMAND_TIMEOUT_S = 10.0


class Commit(NamedTuple):
    """The state of the code that ran.

    Attributes:
        id: the full id; None where the package does not run from a checkout of its own.
        dirty: whether files of the package, or of what measures it, differ from the commit.
    """

    id: str | None
    dirty: bool


def current_commit(checkout: Path = CHECKOUT) -> Commit:
    """The commit of the running package. Only changes of the package, and of what measures it, make
    it dirty: a document that changes, too, changes no measurement."""
    # Installed in some other project's environment, the commit would be that project's.
    if _said(["git", "-C", str(checkout), "ls-files", "sam_detect/__init__.py"]) in (None, ""):
        return Commit(None, False)
    found = _said(["git", "-C", str(checkout), "rev-parse", "HEAD"])
    changes = _said(["git", "-C", str(checkout), "status", "--porcelain", "--", *MEASURING])
    return Commit(found, bool(changes))


def stamp() -> dict[str, Any]:
    """The fields that every measurement begins with: ``date`` (UTC, ISO 8601), ``commit``,
    ``dirty``, ``machine``, ``load`` (how many processes wanted a core in the minute before; None
    where it is not known) and ``versions``."""
    commit = current_commit()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.id,
        "dirty": commit.dirty,
        "machine": describe_machine(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }


def describe_machine() -> dict[str, Any]:
    """``cpu`` (model), ``cores`` and ``memory_gb`` (as this process may use them), ``threads``
    (of linear algebra, where ``OMP_NUM_THREADS`` limits them), ``system`` and ``gpu`` (model)."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "threads": int(threads) if threads.isdecimal() else None,
        "memory_gb": _memory_gb(),
        "system": _system(),
        "gpu": _gpu(),
    }


def machine_name(machine: Mapping[str, Any]) -> str:
    """A machine of :func:`describe_machine` in a few words, for people."""
    cores, memory = machine.get("cores"), machine.get("memory_gb")
    threads = machine.get("threads")
    parts = [
        machine.get("cpu") or "unknown processor",
        f"{cores} core{'' if cores == 1 else 's'}" if cores else None,
        f"{threads} thread{'' if threads == 1 else 's'}" if threads else None,
        f"{memory:.0f} GB" if memory else None,
        machine.get("gpu"),
    ]
    return ", ".join(str(part) for part in parts if part)


def versions() -> dict[str, str]:
    """Versions of the package, of Python and of what is installed of the libraries below."""
    found = {"sam-detect": sam_detect.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    named = None
    if sys.platform == "darwin":
        named = _said(["sysctl", "-n", "machdep.cpu.brand_string"])
    return named or platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    quota, _, period = "".join(_lines(CGROUP / "cpu.max")[:1]).partition(" ")
    if quota.isdigit() and period.isdigit():
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def _memory_gb() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = "".join(_lines(CGROUP / "memory.max")[:1])
    if limit.isdigit():
        total = min(total, int(limit))
    return round(total / 2**30, 1)


def _system() -> str:
    for line in _lines(Path("/etc/os-release")):
        if line.startswith("PRETTY_NAME="):
            name = line.partition("=")[2].strip('"')
            return f"{name}, {platform.machine()}"
    return f"{platform.system()} {platform.release()}, {platform.machine()}"


def _gpu() -> str | None:
    # Asked of the driver: importing torch for it would take seconds.
    if shutil.which("nvidia-smi") is None:
        return None
    said = _said(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return said.splitlines()[0].strip() if said else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _said(command: Sequence[str]) -> str | None:
    """What a command printed; None where it is not there or failed."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
