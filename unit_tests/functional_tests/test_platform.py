from pathlib import Path

import pytest

from environments import settings
from functional_tests.platform import with_ports


@pytest.mark.parametrize("addresses", [("127.0.0.1:4566", "4200"), ("127.0.0.2:14566", "14200")])
def test_copy_has_ports_of_its_own_whichever_the_developer_has_chosen(root: Path, addresses: tuple[str, str]) -> None:
    file = root / "environments" / "local.tfvars"
    text = with_ports(file.read_text(), 1, 1)
    chosen = text.replace('127.0.0.1:1"', f'{addresses[0]}"').replace("internal:1/", f"internal:{addresses[1]}/")
    file.write_text(with_ports(chosen, 21111, 22222))
    environment = settings.load("local")

    assert addresses[0] in chosen
    assert (environment.aws_port, environment.prefect_port) == (21111, 22222)
    assert environment.aws_endpoint_url == "http://127.0.0.1:21111"


def test_settings_without_an_address_are_not_taken_for_a_copy_with_ports_of_its_own() -> None:
    with pytest.raises(ValueError, match="aws_endpoint_url is set 0 times"):
        with_ports('prefect_api_url = "http://host.docker.internal:4200/api"\n', 1, 1)
