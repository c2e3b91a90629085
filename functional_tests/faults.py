"""What tests of reliability found: per fault how often it was injected, what was lost, how long recovery took.

A test that injects a fault records the outcome with the fixture `faults`. `nox -s reliability` runs these tests at full
size and has this module write what they recorded into the table of docs/reliability.md:

    python -m functional_tests.faults RECORDS PAGE [--keep]

With --keep the rows of faults that were not injected this time stay as they are.
"""

import dataclasses
import json
import os
import platform as machine
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from environments import markdown

HEADER = ("fault", "injected", "lost", "recovery: median", "worst")
KEEP = "--keep"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One kind of fault and what became of it.

    Attributes:
        name: what went wrong, and in the middle of what.
        injected: how often.
        lost: runs that did not end as they should, changes that a second command did not finish, intruders let in.
        recoveries: seconds from each fault until all was well again; empty where nothing had to recover.
    """

    name: str
    injected: int
    lost: int
    recoveries: tuple[float, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        times = (statistics.median(self.recoveries), max(self.recoveries)) if self.recoveries else ()
        seconds = [f"{time:.1f} s" for time in times] or ["-", "-"]
        return self.name, f"{self.injected:,}", f"{self.lost:,}", *seconds


class Faults:
    """Takes down faults: prints each, and appends it to a file of JSON lines if there is one."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file

    def record(self, name: str, injected: int, lost: int, recoveries: Sequence[float] = ()) -> Fault:
        """Take down a fault; gives it back, so that the test can say what must hold for it."""
        fault = Fault(name, injected, lost, tuple(recoveries))
        print("fault: " + ", ".join(fault.cells))
        if self.file:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(fault)) + "\n")
        return fault


def table(faults: Sequence[Fault], cores: int, memory_gib: float, page: str = "") -> str:
    """Return the faults as a table in Markdown, with the machine that they were injected on.

    Args:
        faults: that were injected.
        cores: of the machine.
        memory_gib: of the machine, in GiB.
        page: a page that has such a table already; its rows of other faults are kept, in their places.
    """
    cells = {fault.name: fault.cells for fault in faults}
    before = [tuple(line.strip("| ").split(" | ")) for line in page.splitlines() if line.startswith("| ")]
    kept = [cells.pop(row[0], row) for row in before if len(row) == len(HEADER) and row != HEADER and "---" not in row]
    machine_line = f"{machine.system()} {machine.machine()}, {cores} cores, {memory_gib:.0f} GiB."
    return f"{markdown.table(HEADER, [*kept, *cells.values()])}\n\n{machine_line}"


def read(records: Path) -> list[Fault]:
    """The faults in a file of JSON lines; those of one name are one, injected as often as all of them."""
    found: dict[str, Fault] = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        before = found.get(one["name"], Fault(one["name"], 0, 0))
        found[one["name"]] = Fault(
            one["name"],
            before.injected + one["injected"],
            before.lost + one["lost"],
            (*before.recoveries, *one["recoveries"]),
        )
    return list(found.values())


def main() -> int:
    """Write the recorded faults into a page; 1 when one of them lost something."""
    import psutil

    records, page, *keep = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    faults, text = read(records), page.read_text(encoding="utf-8")
    generated = text.partition(markdown.BEGIN)[2].partition(markdown.END)[0]
    content = table(
        faults, os.cpu_count() or 1, psutil.virtual_memory().total / 2**30, generated if keep == [KEEP] else ""
    )
    page.write_text(markdown.fill(text, content), encoding="utf-8")
    print(content)
    return 1 if any(fault.lost for fault in faults) else 0


if __name__ == "__main__":
    sys.exit(main())
