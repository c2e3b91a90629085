"""A small ETL workflow: extract numbers, transform them, load the result."""

from prefect import flow, task


@task
def extract(count: int) -> list[int]:
    return list(range(1, count + 1))


@task
def transform(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


@task
def load(numbers: list[int]) -> int:
    total = sum(numbers)
    print(f"loaded {len(numbers)} rows, their sum is {total}")
    return total


@flow(log_prints=True)
def sample_workflow(count: int = 10) -> int:
    """Extract, transform and load `count` rows."""
    return load(transform(extract(count)))
