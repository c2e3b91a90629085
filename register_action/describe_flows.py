"""Runs inside a workflow's image: imports its flows and prints what Prefect wants to know of them, as JSON.

Entry points come as arguments. The last line of standard output is the answer: a list with one entry for each, either
the flow's name, description and parameter schema, or the error that its import raised; each with the folder in which
that was. A module that does not come to an end is cut off after IMPORT_SECONDS; standard error then says where it was.
It imports nothing of ours.
"""

import faulthandler
import inspect
import json
import os
import sys
import traceback
from typing import Any


def main() -> None:
    """Describe every entry point given; never fails as a whole."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    answers = []
    directory = os.getcwd()
    faulthandler.dump_traceback_later(float(os.environ["IMPORT_SECONDS"]), exit=True)
    for entrypoint in sys.argv[1:]:
        os.chdir(directory)  # a module may have gone elsewhere
        try:
            flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            answers.append(
                {
                    "entrypoint": entrypoint,
                    "name": flow.name,
                    "description": flow.description or "",
                    "parameters": _with_variadics(parameter_schema(flow.fn).model_dump_for_openapi(), flow.fn),
                    "directory": directory,
                }
            )
        except BaseException as error:
            # Prefect wraps what the author's code raised.
            raised = error.__cause__ or error
            told = "".join(traceback.format_exception(raised))
            answers.append({"entrypoint": entrypoint, "error": told, "directory": directory})
    print("\n" + json.dumps(answers), file=sys.__stdout__, flush=True)
    # What a module has left running must not keep us, nor print behind the answer.
    os._exit(0)


def _with_variadics(schema: dict[str, Any], function: Any) -> dict[str, Any]:
    """Correct a schema for `*args` and `**kwargs`, which Prefect describes as required and as one value of their type.

    `**kwargs` gets a mark, so that a command knows from the schema alone that the flow takes any name.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        value = schema["properties"].get(name)
        if value is None or parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        whole = {key: value.pop(key) for key in ("title", "description", "position") if key in value}
        if parameter.kind is parameter.VAR_POSITIONAL:
            whole |= {"type": "array", "items": value, "default": []}
        else:
            whole |= {"type": "object", "additionalProperties": value, "default": {}, "x-python-kind": "VAR_KEYWORD"}
        schema["properties"][name] = whole
        schema["required"] = [other for other in schema.get("required", ()) if other != name]
    if not schema.get("required"):
        schema.pop("required", None)
    return schema


main()
