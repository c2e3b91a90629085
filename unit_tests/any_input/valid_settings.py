"""Settings that the rules allow, made up, and how they are written in a tfvars file."""

import json
from typing import Any

from hypothesis import strategies as st

from environments import rules
from environments.fargate import ARCHITECTURES, MEMORY_FOR_CPU
from environments.settings import EXECUTION_ENVIRONMENTS

ASCII = st.characters(codec="ascii")
SIZES = st.sampled_from([(cpu, memory) for cpu, memories in MEMORY_FOR_CPU.items() for memory in memories])


def like(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True, alphabet=ASCII)


REQUIRED = {
    "aws_account_id": like("[0-9]{12}"),
    "aws_region": st.just("eu-west-1"),
    "prefect_api_url": like("https?://[a-z0-9-]{1,20}[.]example(:[1-9][0-9]{1,3})?(/[a-z0-9._~-]{1,9})?/api"),
}
OPTIONAL = {
    "cpu_architecture": st.sampled_from([*ARCHITECTURES]),
    "agent_count": st.integers(0, 10),
    "execution_environment": st.sampled_from([*EXECUTION_ENVIRONMENTS]),
    "workflow_policy_arns": st.lists(
        like("arn:aws:iam::aws:policy/[A-Za-z0-9_+=,.@/-]{1,40}"), max_size=10, unique=True
    ),
    "extra_tags": st.dictionaries(
        like("[a-z0-9_./=+:@-]{1,20}").filter(lambda key: key not in rules.OWN_TAGS and not key.startswith("aws:")),
        like("[A-Za-z0-9_./=+:@-]{1,30}"),
        max_size=5,
    ),
    "kms_key_arn": like("arn:aws:kms:eu-west-1:[0-9]{12}:key/[a-z0-9-]{36}"),
    "image_retention_count": st.integers(10, 1000),
    "log_retention_days": st.sampled_from(rules.LOG_RETENTION_DAYS),
}
NEW_NETWORK = {
    "network": st.sampled_from(rules.NETWORKS),
    "flow_logs": st.booleans(),
    "vpc_cidr": st.sampled_from(["10.0.0.0/16", "172.31.255.0/24", "192.168.128.0/17"]),
}
EXISTING_NETWORK = {
    "vpc_id": like("vpc-[0-9a-f]{8,17}"),
    "subnet_ids": st.lists(like("subnet-[0-9a-f]{8,17}"), min_size=1, max_size=16, unique=True),
}


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that the rules allow."""
    values: dict[str, Any] = draw(st.fixed_dictionaries(REQUIRED, optional=OPTIONAL))
    if draw(st.booleans()):
        values |= draw(st.fixed_dictionaries(EXISTING_NETWORK, optional={"assign_public_ip": st.booleans()}))
    else:
        values |= draw(st.fixed_dictionaries({}, optional=NEW_NETWORK))
    for part in ("agent", "workflow"):
        if size := draw(st.none() | SIZES):
            values |= {f"{part}_cpu": size[0], f"{part}_memory": size[1]}
    return values


def written(value: Any) -> str:
    """A value as a tfvars file has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def as_text(values: dict[str, Any]) -> str:
    """Settings as a tfvars file has them."""
    return "".join(f"{name} = {written(value)}\n" for name, value in values.items())
