"""Facts about the machine and the libraries, for the report and its JSON file."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import mlefast as mf

_CPUS = Path("/sys/devices/system/cpu")
_ASSUMED = {1: 32 << 10, 2: 1 << 20, 3: 32 << 20}


@dataclass(frozen=True)
class Caches:
    """Bytes of the data caches that the first processor sees; ``assumed`` where the system does not tell."""

    l1: int
    l2: int
    last: int
    assumed: bool = False


def caches(root: Path = _CPUS) -> Caches:
    """Return the sizes of the data caches."""
    sizes: dict[int, int] = {}
    for index in sorted((root / "cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            match = re.fullmatch(r"(\d+)([KM]?)", size)
            if kind != "Instruction" and match is not None:
                sizes[int(level)] = int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
        except (OSError, ValueError):
            continue
    if not sizes:
        return Caches(_ASSUMED[1], _ASSUMED[2], _ASSUMED[3], assumed=True)
    first = sizes.get(1, min(sizes.values()))
    second = sizes.get(2, first)
    return Caches(first, second, max(second, sizes[max(sizes)]))


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what the processor calls itself, or its architecture."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def available_cpus() -> list[int]:
    """Return the processors that this process may run on, those of distinct cores first."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    siblings: list[str] = []
    first: list[int] = []
    others: list[int] = []
    for cpu in cpus:
        path = _CPUS / f"cpu{cpu}/topology/thread_siblings_list"
        core = path.read_text().strip() if path.exists() else str(cpu)
        (others if core in siblings else first).append(cpu)
        siblings.append(core)
    return first + others


def facts(libraries: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a reader must know to believe, or repeat, a measurement.

    Parameters
    ----------
    libraries : iterable of str
        Distributions whose versions are wanted; those that are not installed are left out.
    """
    sizes = caches()
    return {
        "processor": processor_name(),
        "architecture": platform.machine(),
        "cpus": len(available_cpus()),
        "system": f"{platform.system()} {platform.release()}",
        "caches": {"l1": sizes.l1, "l2": sizes.l2, "last": sizes.last, "assumed": sizes.assumed},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "mlefast": mf.show_config(),
        "versions": {name: version for name in libraries if (version := installed_version(name)) is not None},
    }


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
