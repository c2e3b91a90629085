"""Runs inside a workflow's image: imports its flows and prints what Prefect wants to know of them, as JSON.

Entry points come as arguments. The last line of standard output is the answer: a list with one entry for each, either
the flow's name, description and parameter schema, or the error that its import raised. It imports nothing of ours.
"""

import json
import sys
import traceback
from typing import Any


def main() -> None:
    """Describe every entry point given; never fails as a whole."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    answers = []
    for entrypoint in sys.argv[1:]:
        try:
            flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            answers.append(
                {
                    "entrypoint": entrypoint,
                    "name": flow.name,
                    "description": flow.description or "",
                    "parameters": parameter_schema(flow.fn).model_dump_for_openapi(),
                }
            )
        except BaseException as error:
            # Prefect wraps what the author's code raised.
            raised = error.__cause__ or error
            answers.append({"entrypoint": entrypoint, "error": "".join(traceback.format_exception(raised))})
    print("\n" + json.dumps(answers))


main()
