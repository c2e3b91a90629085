"""The text of a tfvars file as plain values, and what Terraform would refuse in it.

python-hcl2 takes more than Terraform does: settings without a line of their own, the same one twice, entries of a map
without a comma between them. What it takes wrongly would stop a deploy half-way.

Source: https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environments.errors import PlatformError

MAXIMUM_BYTES = 20 * 1024
"""More than settings need. The time that the parser takes for a heredoc without end grows with the square of it."""


def read(file: Path, name: str) -> tuple[dict[str, Any], list[str]]:
    """Parse a file.

    Args:
        file: where it is.
        name: what messages call it.

    Returns:
        The values as they are written, expressions as text; and what is wrong with how they are written.

    Raises:
        PlatformError: it can't be read or does not parse.
    """
    import hcl2
    from lark.exceptions import LarkError

    try:
        text = _text(file.read_bytes())
        tree = hcl2.parses(text)
        options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
        values: dict[str, Any] = hcl2.serialize(tree, serialization_options=options)
        return values, list(_misplaced(tree.body))
    except (LarkError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: also when it is nested too deeply
        line, column = (getattr(error, place, 0) for place in ("line", "column"))
        raise PlatformError(
            f"{name} line {line}, column {column} does not parse" if line else f"{name} does not parse",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            "write one `name = value` a line, text in double quotes",
        ) from error


def _text(data: bytes) -> str:
    if len(data) > MAXIMUM_BYTES:
        raise ValueError(f"it is larger than {MAXIMUM_BYTES // 1024} KiB")
    text = data.decode("utf-8-sig")
    if alone := re.search(r"\r(?!\n)", text):
        raise ValueError(f"line {text.count(chr(10), 0, alone.start()) + 1} holds a carriage return that ends no line")
    return text if text.endswith("\n") else text + "\n"


def _misplaced(rule: Any) -> Iterator[str]:
    """What Terraform would refuse of settings, and of the entries of maps, that python-hcl2 takes."""
    from hcl2.rules.base import AttributeRule, BlockRule
    from hcl2.rules.containers import ObjectElemRule
    from hcl2.rules.tokens import COMMA
    from hcl2.rules.whitespace import NewLineOrCommentRule

    apart, names = True, set[str]()
    for child in getattr(rule, "children", ()):
        if isinstance(child, NewLineOrCommentRule):
            apart |= any(not part.value.startswith("/*") for part in child.children)
        elif isinstance(child, COMMA):
            apart = True
        elif isinstance(child, AttributeRule | BlockRule | ObjectElemRule):
            name = str(child.children[0].serialize()).strip('"')
            if not apart:
                yield f"{name}: " + (
                    "a comma must stand before it" if isinstance(child, ObjectElemRule) else "must begin a new line"
                )
            if name in names:
                yield f"{name}: given twice"
            names.add(name)
            apart = False
        yield from _misplaced(child)
