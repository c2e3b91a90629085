"""What AWS Fargate offers: processors, and which memory goes with which cpu.

Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
Cpu in CPU units (1024 is one vCPU), memory in MiB.
"""

import re
from typing import Any

GIB = 1024

ARCHITECTURES = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}
"""CPU architectures as task definitions name them, and the platform that Docker builds for each.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RuntimePlatform.html
"""

MEMORY_FOR_CPU: dict[int, tuple[int, ...]] = {
    256: (512, 1 * GIB, 2 * GIB),
    512: tuple(range(1 * GIB, 4 * GIB + 1, GIB)),
    1024: tuple(range(2 * GIB, 8 * GIB + 1, GIB)),
    2048: tuple(range(4 * GIB, 16 * GIB + 1, GIB)),
    4096: tuple(range(8 * GIB, 30 * GIB + 1, GIB)),
    8192: tuple(range(16 * GIB, 60 * GIB + 1, 4 * GIB)),
    16384: tuple(range(32 * GIB, 120 * GIB + 1, 8 * GIB)),
}


def size_problem(cpu: int, memory: int) -> str | None:
    """Say what is wrong with a Fargate size, or None when Fargate offers it.

    Args:
        cpu: CPU units.
        memory: MiB.
    """
    if cpu not in MEMORY_FOR_CPU:
        return f"cpu {cpu} is not offered by Fargate; allowed: {_listed(tuple(MEMORY_FOR_CPU))}"
    if memory not in MEMORY_FOR_CPU[cpu]:
        return f"memory {memory} does not go with cpu {cpu}; allowed: {_listed(MEMORY_FOR_CPU[cpu])}"
    return None


def units_of(size: Any, large_unit: str) -> int | None:
    """A task size as a number: `1024` as it is, `1 vCPU` and `1 GB` as 1024 of the small unit; None for other texts."""
    parts = re.fullmatch(rf"(\d*\.?\d+)\s*({large_unit})?", str(size).strip().lower())
    if not parts or (not parts[2] and "." in parts[1]):
        return None
    return round(float(parts[1]) * 1024) if parts[2] else int(parts[1])


def _listed(values: tuple[int, ...]) -> str:
    if len(values) <= 8:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]} in steps of {values[1] - values[0]}"
