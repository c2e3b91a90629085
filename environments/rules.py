"""What values settings may have: types, patterns and lists, apart from which setting has which."""

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from typing import Any

LOG_RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
"""https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html"""


NETWORKS = ("public", "private_nat", "private_endpoints")
"""The networks that Terraform can make; variable `network` in infra/variables.tf describes them."""
OWN_TAGS = ("environment", "project", "managed_by", "name")
"""Tags that the platform sets itself. IAM takes no two keys that differ in upper and lower case only."""
TAGS = (
    'up to 30 tags of letters, digits and _./=+:@- such as { cost_center = "data" }; keys that differ from each other '
    f"and from {', '.join(OWN_TAGS)} not only in upper and lower case, and don't begin with aws:"
)

NAME = r"[a-z][a-z0-9]{1,15}"
MAXIMUM_PORT = 65535
PREFECT_CLOUD = "api.prefect.cloud"
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
HOST = r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*"
PREFECT_API_URL = rf"https?://{HOST}(:[0-9]{{1,5}})?(/[A-Za-z0-9._~-]+)*/api(/accounts/{UUID}/workspaces/{UUID})?"
PRIVATE_BLOCKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


OTHER_PARTITIONS = {
    "aws-cn": "cn-",
    "aws-us-gov": "us-gov-",
    "aws-eusc": "eusc-",
    "aws-iso": "us-iso-",
    "aws-iso-b": "us-isob-",
    "aws-iso-e": "eu-isoe-",
    "aws-iso-f": "us-isof-",
}
"""The partitions of AWS besides `aws`, and how the names of their regions begin.

https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
"""


def other_partition(value: Any) -> str:
    """The partition of AWS that a region or an ARN belongs to; empty for `aws`, and for what is neither.

    Args:
        value: a setting; of a list, the first that belongs to another partition counts.
    """
    for text in value if isinstance(value, list) else [value]:
        arn = re.match("arn:(aws-[a-z-]+):", text)
        found = [arn[1]] if arn else [name for name, begin in OTHER_PARTITIONS.items() if text.startswith(begin)]
        if found:
            return found[0]
    return ""


def matches(pattern: str) -> Callable[[Any], bool]:
    """A check: the text matches the pattern from end to end."""
    return lambda value: re.fullmatch(pattern, value) is not None


def is_url(pattern: str) -> Callable[[Any], bool]:
    """A check: the text matches the pattern, and its port is one."""
    return lambda value: re.fullmatch(pattern, value) is not None and 1 <= port(value) <= MAXIMUM_PORT


def is_vpc_cidr(value: str) -> bool:
    """Whether a text is a private IPv4 block of a size that a VPC may have."""
    if not re.fullmatch(r"[0-9.]+/[0-9]{2}", value):
        return False
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return 16 <= network.prefixlen <= 24 and any(map(network.subnet_of, PRIVATE_BLOCKS))


def all_match(pattern: str, most: int) -> Callable[[Any], bool]:
    """A check: at most so many texts, all different, each matching the pattern."""
    return lambda values: (
        len(set(values)) == len(values) <= most and all(re.fullmatch(pattern, value) for value in values)
    )


def are_tags(tags: dict[str, str]) -> bool:
    """Whether every service of AWS, and Prefect's worker, takes these tags as they are, beside the platform's own."""
    keys = [key.lower() for key in tags]
    return (
        len(tags) <= 30
        and len({*keys, *OWN_TAGS}) == len(keys) + len(OWN_TAGS)
        and all(re.fullmatch(r"(?![aA][wW][sS]:)[A-Za-z0-9_./=+:@-]{1,128}", key) for key in tags)
        and all(re.fullmatch(r"[A-Za-z0-9_./=+:@-]{1,256}", value) for value in tags.values())
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A type of settings: Python's, Terraform's, and how it is written in a tfvars file."""

    type: Any
    terraform: str
    words: str
    fits: Callable[[Any], bool]


KINDS = (
    Kind(str, "string", "text in double quotes", _is_text),
    # bool is an int to Python, not to Terraform
    Kind(int, "number", "a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    Kind(bool, "bool", "true or false", lambda value: isinstance(value, bool)),
    Kind(
        tuple[str, ...],
        "list(string)",
        "texts in double quotes in square brackets",
        lambda value: isinstance(value, list) and all(map(_is_text, value)),
    ),
    Kind(
        dict[str, str],
        "map(string)",
        'texts by name such as { name = "text" }',
        lambda value: isinstance(value, dict) and all(map(_is_text, [*value, *value.values()])),
    ),
)


def port(url: str) -> int:
    """The port of a URL, the usual one of its scheme if it names none."""
    scheme, _, rest = url.partition("://")
    named = rest.partition("/")[0].partition(":")[2]
    return int(named) if named else (443 if scheme == "https" else 80)
