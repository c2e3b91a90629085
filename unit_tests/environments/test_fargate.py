import pytest

from environments.fargate import MEMORY_FOR_CPU, size_problem


@pytest.mark.parametrize(
    ("cpu", "smallest", "largest", "count"),
    [
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
        (256, 512, 2048, 3),
        (512, 1024, 4096, 4),
        (1024, 2048, 8192, 7),
        (2048, 4096, 16384, 13),
        (4096, 8192, 30720, 23),
        (8192, 16384, 61440, 12),
        (16384, 32768, 122880, 12),
    ],
)
def test_table_is_the_one_of_aws(cpu: int, smallest: int, largest: int, count: int) -> None:
    offered = [memory for memory in range(0, 130 * 1024, 256) if size_problem(cpu, memory) is None]

    assert (offered[0], offered[-1], len(offered)) == (smallest, largest, count)


def test_no_other_cpu_is_offered() -> None:
    offered = [cpu for cpu in range(0, 20000) if "cpu" not in (size_problem(cpu, -1) or "").split(" is not ")[0][:3]]

    assert offered == list(MEMORY_FOR_CPU)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        (300, 512, "cpu 300 is not offered by Fargate; allowed: 256, 512, 1024, 2048, 4096, 8192, 16384"),
        (256, 4096, "memory 4096 does not go with cpu 256; allowed: 512, 1024, 2048"),
        (4096, 1024, "memory 1024 does not go with cpu 4096; allowed: 8192 to 30720 in steps of 1024"),
        (8192, 17408, "memory 17408 does not go with cpu 8192; allowed: 16384 to 61440 in steps of 4096"),
    ],
)
def test_wrong_size_says_what_is_allowed(cpu: int, memory: int, expected: str) -> None:
    assert size_problem(cpu, memory) == expected
