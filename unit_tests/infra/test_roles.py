import pytest

from environments.settings import Environment
from infra.roles import ROLES, role_arn


@pytest.mark.parametrize("role", ROLES)
def test_role_is_known_before_it_is_there(environment: Environment, role: str) -> None:
    assert role_arn(environment, role) == f"arn:aws:iam::123456789012:role/dev_dataflow_automation_{role}"


def test_role_that_nobody_makes_is_refused(environment: Environment) -> None:
    with pytest.raises(ValueError, match="'admin'"):
        role_arn(environment, "admin")
