"""Writes the generated part of docs/performance.md: figures, a picture of a first deploy, packages of the image."""

import dataclasses
from pathlib import Path

from environments import markdown

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BIG_MEGABYTES = 2.5
WHY = {
    "aiohttp": "the agent asks SQS what became of its tasks with it",
    "alembic": "Prefect's server; `pip check`",
    "apprise": "Prefect's notification blocks, which workflows send messages with",
    "asyncpg": "Prefect's server with PostgreSQL; `pip check`",
    "beartype": "a store of Prefect's background tasks wants it; `pip check`",
    "boto3": "AWS, for the agent and for workflows",
    "botocore": "AWS, for the agent and for workflows: most of it describes services",
    "burner_redis": "Prefect's background tasks; `pip check`",
    "cryptography": "Prefect's server; workflows that decrypt; `pip check`",
    "cyclopts": "Prefect's command line, by which each run starts",
    "dateparser": "moments in words, on Prefect's command line; `pip check`",
    "prefect": "runs the workflows; the web page of its server is left out",
    "pydantic": "parameters of flows",
    "pydantic_core": "parameters of flows",
    "pygments": "tracebacks in logs",
    "redis": "Prefect's background tasks; `pip check`",
    "regex": "dateparser wants it",
    "rich": "Prefect's logs and command line",
    "rich_rst": "cyclopts wants it",
    "ruamel": "`prefect.yaml`, on Prefect's command line; `pip check`",
    "ruamel_yaml": "`prefect.yaml`, on Prefect's command line; `pip check`",
    "sqlalchemy": "Prefect's server; workflows that ask databases; `pip check`",
    "yaml": "settings, blocks and variables at Prefect",
}
"""Why the big packages of the agent's image stay: each is one that Prefect or its AWS integration asks for."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of ours, the one that it is held against, and the greatest ratio of both that is good enough."""

    what: str
    ours: float
    instead: str
    theirs: float
    limit: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs

    @property
    def holds(self) -> bool:
        """Whether it is good enough."""
        return self.ratio <= self.limit

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        figures = (f"{self.ours:.2f} {self.unit}", f"{self.theirs:.2f} {self.unit}")
        return self.what, self.instead, *figures, f"{self.ratio:.2f}", f"{self.limit:g}"

    def __str__(self) -> str:
        what, instead, ours, theirs, ratio, limit = self.cells
        return f"{what}: {ours}; {instead}: {theirs}; {ratio} (limit {limit}) {'ok' if self.holds else 'OVER'}"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A step: its name, and in seconds when it began and how long it took."""

    name: str
    begin: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured: rows of the table, bars of the picture by section, megabytes by package."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    bars: dict[str, list[Bar]] = dataclasses.field(default_factory=dict)
    packages: dict[str, float] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(self.rows + other.rows, self.bars | other.bars, self.packages | other.packages)


def write(machine: str, measured: Measured) -> None:
    """Write the page anew."""
    PAGE.write_text(markdown.fill(PAGE.read_text(encoding="utf-8"), content(machine, measured)), encoding="utf-8")


def content(machine: str, measured: Measured) -> str:
    """The generated part: tables and a picture, each with a line that says what it is."""
    header = ("what", "instead of", "ours", "theirs", "ratio", "at most")
    return "\n\n".join(
        [
            f"Measured in one run on {machine}:",
            markdown.table(header, [row.cells for row in measured.rows], left=2),
            "A first deploy, and its steps typed one after the other; minutes and seconds:",
            gantt(measured.bars),
            f"Packages of the agent's image with more than {BIG_MEGABYTES:g} MB:",
            markdown.table(("package", "why it stays", "MB"), packages(measured.packages), left=2),
        ]
    )


def gantt(sections: dict[str, list[Bar]]) -> str:
    """A picture of steps side by side: https://mermaid.js.org/syntax/gantt.html."""
    lines = ["```mermaid", "gantt", "    dateFormat x", "    axisFormat %M:%S"]
    for section, bars in sections.items():
        lines.append(f"    section {section}")
        for bar in sorted(bars, key=lambda bar: bar.begin):
            begin, end = (round(1000 * seconds) for seconds in (bar.begin, bar.begin + bar.seconds))
            lines.append(f"    {bar.name} {bar.seconds:.1f} s :{begin}, {end}")
    return "\n".join([*lines, "```"])


def packages(megabytes: dict[str, float]) -> list[tuple[str, str, str]]:
    """Rows of the big packages, biggest first.

    Raises:
        KeyError: nobody has said why one of them stays.
    """
    named: dict[str, float] = {}
    for part, size in megabytes.items():
        name = part.partition(".")[0].lstrip("_")  # _ruamel_yaml.cpython-311-x86_64-linux-gnu.so
        named[name] = named.get(name, 0) + size
    big = sorted(((size, name) for name, size in named.items() if size > BIG_MEGABYTES), reverse=True)
    return [(f"`{name}`", WHY[name], f"{size:.1f}") for size, name in big]
