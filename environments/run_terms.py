"""Names that the agent writes to Prefect and ECS, and that commands read there.

The agent's image contains this file, so it imports nothing.
"""

AWAITING_RESTART = "AwaitingRestart"
"""State of a run whose task died and that will be started again."""
AWAITING_CAPACITY = "AwaitingCapacity"
"""State of a run that AWS could not start a task for; it waits for its turn."""
RESCHEDULED = "Rescheduled"
"""State of a run that was left without a task and is scheduled again."""
NOT_RESTARTED = "Not started again"
"""Logged when restarts are configured but the run is not restarted; followed by the reason."""

RUN_TAG = "prefect.io/flow-run-id"
"""Tag of a task: the run that it was started for. Prefect's worker sets it."""
ATTEMPT_TAG = "attempt"
"""Tag of a task: the attempt of that run."""
RESTARTS_TAG = "restarts"
"""Tag of a task: how often the run may be restarted after its task died."""

LEASE = "holds concurrency lease"
"""Written to a task's log, followed by the lease's id, when the run takes a slot of a global concurrency limit."""
WAITING = "runs wait for capacity"
"""Logged by the agent once a minute while AWS refuses to start tasks; an alarm looks for it."""
