"""Pages of the documentation of which a part is generated: it stands between two comments that nobody sees."""

from collections.abc import Sequence

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows as a table in Markdown; all columns but the first ones are figures, and stand to the right."""
    ruler = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))


def fill(page: str, content: str) -> str:
    """The page with its generated part replaced.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} with a {END} behind it")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"
