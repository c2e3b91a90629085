"""Commands on a page of the documentation, with what it says that they print: `...` stands for anything."""

import dataclasses
import doctest
import re
from collections.abc import Iterator

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT, CONTINUED = "$ ", ">"


@dataclasses.dataclass(frozen=True)
class Stop:
    """One command of the page, lines of its input included, and what stands below it."""

    command: str
    prints: str

    def is_true(self, printed: str) -> bool:
        """Whether the page tells what was printed, but for white space."""
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        return doctest.OutputChecker().check_output(self.prints, printed, flags)


def stops(page: str) -> Iterator[Stop]:
    """The commands of a page in their order.

    Raises:
        ValueError: a block does not begin with a command.
    """
    for block in BLOCK.findall(page):
        if not block.startswith(PROMPT):
            raise ValueError(f"no command in front of: {block}")
        for part in re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)[1:]:
            first, *lines = part.splitlines()
            count = next((n for n, line in enumerate(lines) if not line.startswith(CONTINUED)), len(lines))
            typed = [first, *(line.removeprefix(CONTINUED).removeprefix(" ") for line in lines[:count])]
            yield Stop("\n".join(typed), "".join(f"{line}\n" for line in lines[count:]))
