"""Parameters of a flow: read from a command line or a file, and compared with those that the flow has.

`describe_flows.py` writes down in the schema of a flow's parameters which one collects names that the flow does not
declare (`**kwargs`). Prefect passes such names only as a mapping under that parameter, so `fitted` puts them there.
"""

import difflib
import json
import reprlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from environments.errors import PlatformError
from register_action.yaml_text import UNFIT

KIND = "x-python-kind"
"""Key in a parameter's schema: how Python passes it, where that is not by its name."""
VAR_KEYWORD = "VAR_KEYWORD"
UNKNOWN_SCHEMA = {"type": "object", "properties": {}}
"""What Prefect stores for a deployment that was created without a schema: nothing is known of its flow."""


def unknown(schema: Mapping[str, Any], names: Mapping[str, Any]) -> list[str]:
    """Say which parameters a flow does not have; empty if it has all of them, or takes any name.

    Args:
        schema: of the flow's parameters, as Prefect has it.
        names: parameters by name.
    """
    if schema.get("properties") is None or schema == UNKNOWN_SCHEMA or _var_keyword(schema):
        return []
    declared = list(schema["properties"])
    problems = []
    for name in names:
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(declared) or 'none'}"
            problems.append(f"the flow has no parameter {name!r}; {hint}")
    return problems


def fitted(schema: Mapping[str, Any], parameters: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Put the names that a flow does not declare where Prefect passes them on, if the flow takes any name.

    Args:
        schema: of the flow's parameters.
        parameters: by name.
        defaults: parameters that Prefect would use for those that are not in `parameters`.
    """
    collecting = _var_keyword(schema)
    undeclared = {name: value for name, value in parameters.items() if name not in schema.get("properties", {})}
    if not collecting or not undeclared:
        return parameters
    for given in (parameters.get(collecting), defaults.get(collecting)):
        if isinstance(given, dict):
            undeclared = {**given, **undeclared}
    return {**{name: parameters[name] for name in parameters.keys() - undeclared.keys()}, collecting: undeclared}


def _var_keyword(schema: Mapping[str, Any]) -> str:
    """The parameter that collects other names; empty if the flow has none."""
    properties = schema.get("properties") or {}
    return next((name for name, each in properties.items() if each.get(KIND) == VAR_KEYWORD), "")


def read(file: str, pairs: list[str]) -> dict[str, Any]:
    """Read the parameters of a run.

    Args:
        file: with a JSON object; `-` for standard input, empty for none.
        pairs: `key=value`, which override those of the file.

    Raises:
        PlatformError: as `parse_file` and `parse_pairs`.
    """
    return {**(parse_file(file) if file else {}), **parse_pairs(pairs)}


def parse_file(file: str) -> dict[str, Any]:
    """Read a JSON object from a file, or from standard input for `-`.

    Raises:
        PlatformError: the file cannot be read, or its content is no JSON object that Prefect accepts.
    """
    name = "standard input" if file == "-" else file
    try:
        text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number)
        fit = not any(map(UNFIT.search, _texts(value)))
    except OSError as error:
        raise PlatformError(f"--params-file {name} cannot be read", str(error.strerror), "correct the path") from error
    except UnicodeDecodeError as error:
        raise PlatformError(f"--params-file {name} is not JSON", "it is not UTF-8", "save it as UTF-8") from error
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise PlatformError(f"--params-file {name} is not JSON", why, "correct the file") from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise PlatformError(
            f"--params-file {name} has a value that Prefect does not take", why, "correct it"
        ) from error
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise PlatformError(
            f"--params-file {name} is not a JSON object", f"it holds {kind}", 'write {"name": value, ...}'
        )
    if not fit:
        raise PlatformError(
            f"--params-file {name} has characters that Prefect does not take", "NUL, or no UTF-8", "leave them out"
        )
    return value


def parse_pairs(pairs: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a value that is JSON which Prefect takes is taken as such, anything else as text.

    Raises:
        PlatformError: a pair without `=`, or with characters that Prefect does not take.
    """
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise PlatformError(f"--param {pair!r} is not key=value", "", "write --param name=value")
        try:
            read = json.loads(value, parse_int=_number, parse_float=_number, parse_constant=_number)
            texts = [key, *_texts(read)]
        except (ValueError, RecursionError):
            read, texts = value, [key, value]
        if any(map(UNFIT.search, texts)):
            raise PlatformError(
                f"--param {pair!r} has characters that Prefect does not take", "NUL, or no UTF-8", "leave them out"
            )
        parameters[key] = read
    return parameters


def _number(text: str) -> int | float:
    number = int(text) if text.removeprefix("-").isdecimal() else float(text)
    if not abs(number) < 2**63:  # NaN neither
        raise ValueError(f"{reprlib.repr(text)} is no number that Prefect takes")
    return number


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(inner)
