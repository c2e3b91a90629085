"""What the reliability tests record, and the table that is made of it."""

from pathlib import Path

import pytest

from environments.markdown import BEGIN, END
from functional_tests import faults
from functional_tests.faults import Fault, Faults


def test_what_is_recorded_can_be_read_again(tmp_path: Path) -> None:
    record = Faults(tmp_path / "records").record
    made = [record("agent killed", 10, 0, [3.0, 1.5]), record("port knocked at", 1000, 1)]
    assert faults.read(tmp_path / "records") == made


def test_faults_of_one_name_are_one_row(tmp_path: Path) -> None:
    record = Faults(tmp_path / "records").record
    record("AWS fails", 3, 0, [2.0])
    record("port knocked at", 1, 0)
    record("AWS fails", 4, 1, [1.0])

    assert faults.read(tmp_path / "records") == [Fault("AWS fails", 7, 1, (2.0, 1.0)), Fault("port knocked at", 1, 0)]


def test_the_table_has_the_median_and_the_worst_recovery() -> None:
    table = faults.table([Fault("agent killed", 1000, 0, (3.0, 1.0, 8.0)), Fault("a knock", 5, 2)], 2, 23.6)
    assert "| agent killed | 1,000 | 0 | 3.0 s | 8.0 s |" in table
    assert "| a knock | 5 | 2 | - | - |" in table
    assert "2 cores, 24 GiB" in table


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 1)])
def test_a_loss_fails_the_session(tmp_path: Path, lost: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    records, page = tmp_path / "records", tmp_path / "page"
    page.write_text(f"{BEGIN}\n{END}")
    Faults(records).record("agent killed", 10, lost, [1.0])
    monkeypatch.setattr("sys.argv", ["faults", str(records), str(page)])
    assert faults.main() == code
    assert "| agent killed | 10 |" in page.read_text()


def test_rows_of_faults_that_were_not_injected_this_time_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, page = tmp_path / "records", tmp_path / "page"
    old = [Fault("agent killed", 10, 0, (3.0,)), Fault("a knock", 5, 0), Fault("storm", 1, 0)]
    page.write_text(f"before\n{BEGIN}\n{faults.table(old, 2, 24)}\n{END}\nafter")
    Faults(records).record("a knock", 7, 0, [1.0])
    Faults(records).record("new", 1, 0)
    monkeypatch.setattr("sys.argv", ["faults", str(records), str(page), "--keep"])
    assert faults.main() == 0
    names = [line.split(" | ")[:2] for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert names == [["| agent killed", "10"], ["| a knock", "7"], ["| storm", "1"], ["| new", "1"]]
