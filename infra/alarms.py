"""The alarm for an agent that is down: it must not ring when somebody has stopped the agent on purpose."""

from environments.settings import Environment
from infra.aws import client


def expect_agent(environment: Environment, expected: bool) -> None:
    """Let the alarm tell its topic from now on that no agent runs, or not; see alarms.tf."""
    cloudwatch, alarm = client(environment, "cloudwatch"), f"{environment.prefix}_agent_down"
    switch = cloudwatch.enable_alarm_actions if expected else cloudwatch.disable_alarm_actions
    switch(AlarmNames=[alarm])
