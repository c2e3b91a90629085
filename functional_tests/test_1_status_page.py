"""`invoke status` of a platform at work: it answers at once, and keeps a page up to date for whoever watches."""

import itertools
import re
import signal
import threading

from functional_tests.platform import Platform, wait_for

PREFIX = "local_dataflow_automation"
PROJECT = re.compile(r"^(?:ok|WRONG) +Prefect project +([^,\n]+)")


def test_status_and_workflows_do_without_the_libraries_that_take_longer_than_they_do(deployed: Platform) -> None:
    for command in ("status", "workflows"):
        imported = deployed.invoke(command, PYTHONPROFILEIMPORTTIME="1").stdout
        libraries = {
            line.rpartition("|")[2].strip() for line in imported.splitlines() if line.startswith("import time:")
        }

        assert "invoke" in libraries
        assert libraries & {"prefect", "pydantic", "httpx", "docker"} == set()


def test_page_tells_what_has_changed_while_it_is_watched_and_ends_with_ctrl_c(deployed: Platform) -> None:
    page, lines = deployed.start("status", "--watch"), list[str]()
    reader = threading.Thread(target=lambda: lines.extend(page.stdout or ()), daemon=True)
    reader.start()

    def states() -> list[str]:
        """What the pages have said of the project, one after the other."""
        said = [found[1] for line in list(lines) if (found := PROJECT.match(line))]
        return [state for state, _ in itertools.groupby(said)]

    wait_for("the first page", lambda: states() == [PREFIX])
    deployed.prefect(f"/work_pools/{PREFIX}", {"is_paused": True}, "PATCH")
    wait_for("a page with the change", lambda: states() == [PREFIX, "paused"])
    deployed.prefect(f"/work_pools/{PREFIX}", {"is_paused": False}, "PATCH")
    wait_for("a page that is well again", lambda: states() == [PREFIX, "paused", PREFIX])
    page.send_signal(signal.SIGINT)
    reader.join(20)

    printed = "".join(lines)
    assert page.wait(20) == 0, printed
    assert f"/work-pools/work-pool/{PREFIX}" in printed
    assert "Traceback" not in printed
