"""Expressions of GitHub Actions, as far as this project's workflows use them; any other is a ValueError.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

import ast
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

LITERALS = {"null": None, "true": True, "false": False}
SIGNS = {"&&": " and ", "||": " or ", "!": "~"}
TOKEN = re.compile(
    r"'(?P<text>(?:[^']|'')*)'|(?P<status>success|failure|always)\(\)|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)|(?P<sign>==|!=|&&|\|\||[!()])|(?P<space>\s+)|(?P<other>.)"
)


def evaluate(expression: str, contexts: Mapping[str, Any], failed: bool = False) -> Any:
    """The value of an expression: None, a truth value, a number or a text.

    Args:
        expression: what stands between `${{` and `}}`, or after `if:`.
        contexts: `inputs`, `github` and so on.
        failed: whether an earlier step failed; success(), failure() and always() want to know.
    """
    values: list[Any] = []
    source = ""
    for match in TOKEN.finditer(expression.strip()):
        kind, token = str(match.lastgroup), match[str(match.lastgroup)]
        if kind in ("sign", "space", "other"):
            source += " " if kind == "space" else SIGNS.get(token, token)
            continue
        source += f"value{len(values)}"
        if kind == "name":
            values.append(LITERALS[token] if token in LITERALS else _property(token, contexts))
        elif kind == "status":
            values.append(token == "always" or failed == (token == "failure"))
        else:
            values.append(token.replace("''", "'") if kind == "text" else float(token))
    try:
        # With the signs replaced it binds in Python as it does on GitHub.
        return _value(ast.parse(source, mode="eval").body, values)
    except SyntaxError as error:
        raise ValueError(f"no expression: {expression!r}") from error


def interpolate(text: str, contexts: Mapping[str, Any]) -> str:
    """A text with the value of each `${{ }}` in its place."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: as_text(evaluate(match[1], contexts)), text, flags=re.DOTALL)


def _property(name: str, contexts: Any) -> Any:
    value = contexts
    for part in name.split("."):
        if not isinstance(value, Mapping) or (part not in value and not isinstance(value, defaultdict)):
            raise ValueError(f"there is no {name}")
        value = value[part]
    if isinstance(value, Mapping):
        raise ValueError(f"{name} is not a single value")
    return value


def _value(node: ast.expr, values: list[Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[int(name.removeprefix("value"))]
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return not _value(operand, values)
        case ast.BoolOp(op=sign, values=parts):
            value = _value(parts[0], values)
            for part in parts[1:]:
                other = _value(part, values)
                value = (value and other) if isinstance(sign, ast.And) else (value or other)
            return value
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as sign], comparators=[right]):
            return _equal(_value(left, values), _value(right, values)) == isinstance(sign, ast.Eq)
    raise ValueError(f"not played here: {ast.unparse(node)}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    try:
        return float(one or 0) == float(other or 0)
    except ValueError:
        return False  # a text that is no number equals none


def as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def applies(condition: Any, contexts: Mapping[str, Any], failed: bool) -> bool:
    """Whether a step or job with this `if:` runs; one that asks for no status runs only when nothing has failed."""
    text = as_text(condition).removeprefix("${{").removesuffix("}}")
    if not re.search(r"(success|failure|always)\(\)", text):
        text = f"success() && ({text})"
    return bool(evaluate(text, contexts, failed))
