"""What a container has used, from its control group, where the engine runs on this machine."""

from __future__ import annotations

from pathlib import Path

from agenthub.isolation import BoxUsage

__all__ = ["usage_of"]

_ROOT = Path("/sys/fs/cgroup")


def usage_of(container: str, parent: str = "docker") -> BoxUsage | None:
    """Usage of a running container; None where its control group is not here.

    Args:
        parent: the group that the engine was told to put it under, else its own.
    """
    for name in (f"{parent}/{container}", f"system.slice/docker-{container}.scope"):
        memory = _number(_ROOT / "memory" / name / "memory.max_usage_in_bytes")
        if memory is not None:
            return BoxUsage(
                cpu_s=(_number(_ROOT / "cpuacct" / name / "cpuacct.usage") or 0) / 1e9, peak_mb=memory >> 20
            )
        unified = _ROOT / name
        if unified.is_dir():
            peak = _number(unified / "memory.peak") or _number(unified / "memory.current") or 0
            return BoxUsage(cpu_s=_cpu(unified / "cpu.stat"), peak_mb=peak >> 20)
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cpu(path: Path) -> float:
    try:
        rows = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
        return int(rows["usage_usec"]) / 1e6
    except (OSError, ValueError, KeyError):
        return 0.0
