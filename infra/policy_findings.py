"""What parliament finds in policy documents. `nox -s lint` runs it in the environment of requirements/checkers.txt.

    python infra/policy_findings.py FOLDER    1 when there is a finding in one of its *.json, or no such file

The library, because its command line leaves a log in the folder of temporary files that all users share.
https://github.com/duo-labs/parliament
"""

import sys
import tomllib
from pathlib import Path

LEFT_OUT = {
    # parliament: ignore RESOURCE_STAR - a permissions boundary gives nothing, it only limits what other policies give
    "boundary": "RESOURCE_STAR",
    # parliament: ignore RESOURCE_STAR - in a key policy "*" is the key that it is attached to, and nothing else can be
    "key": "RESOURCE_STAR",
}


EXCEPTIONS = Path(__file__).with_name("iam_exceptions.toml")


def actions_without_resource() -> set[str]:
    """The actions that AWS evaluates on "*", although its reference names resources for them."""
    entries = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))["exception"]
    return {action for entry in entries if entry["finding"] == "any resource" for action in entry["actions"]}


def main() -> int:
    """Print each finding with its place."""
    from parliament import analyze_policy_string, enhance_finding

    without_resource = actions_without_resource()
    files = sorted(Path(sys.argv[1]).glob("*.json"))
    count = 0
    for file in files:
        left_out = {issue for pattern, issue in LEFT_OUT.items() if file.match(f"{pattern}.json")}
        for finding in analyze_policy_string(file.read_text(encoding="utf-8")).findings:
            named = finding.issue == "RESOURCE_STAR" and {*finding.detail} <= without_resource
            if finding.issue not in left_out and not named:
                count += 1
                told = enhance_finding(finding)
                place = f"{file}:{told.location.get('line', 1)}"
                print(f"{place}: {told.severity} {told.title} {told.detail}")
    print(f"{count} findings in {len(files)} policy documents")
    return 1 if count or not files else 0


if __name__ == "__main__":
    sys.exit(main())
