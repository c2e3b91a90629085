"""Checks of what is on AWS beside the agent: queues, alarms, images, Terraform's lock."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from environments.errors import PlatformError
from environments.settings import Environment
from infra import images, state
from infra.aws import client
from infra.terraform_errors import lock_held

AT_ONCE = 8
"""Requests to ECR at the same time."""
BACKLOG = 100
"""Task state changes that may wait; the agent takes one after the other, many times a second."""


def task_events(environment: Environment) -> str:
    """Whether the agent keeps up with what ECS tells of ended tasks."""
    waiting = _messages(environment, f"{environment.prefix}_task_events")
    if waiting > BACKLOG:
        raise PlatformError(
            f"{waiting} wait for the agent",
            "runs whose task died are marked Crashed late, or never: after four days SQS drops what waits",
            f"see what keeps the agent: invoke logs agent --env {environment.name}",
        )
    return f"{waiting} waiting"


def dead_letters(environment: Environment) -> str:
    """Whether there are task state changes that the agent has failed to process."""
    queue = f"{environment.prefix}_task_events_dead_letters"
    if count := _messages(environment, queue):
        arn = f"arn:aws:sqs:{environment.aws_region}:{environment.aws_account_id}:{queue}"
        raise PlatformError(
            f"{count} that the agent could not process",
            "it has failed five times at each of these task state changes; SQS keeps them for two weeks",
            f"see why: invoke logs agent --env {environment.name}; then hand them to it again: "
            f"aws sqs start-message-move-task --source-arn {arn}",
        )
    return "none"


def _messages(environment: Environment, queue: str) -> int:
    sqs = client(environment, "sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def alarms(environment: Environment) -> str:
    """Whether one of the environment's CloudWatch alarms rings."""
    found = client(environment, "cloudwatch").describe_alarms(AlarmNamePrefix=f"{environment.prefix}_")["MetricAlarms"]
    ringing = [alarm for alarm in found if alarm["StateValue"] == "ALARM"]
    if ringing:
        raise PlatformError(
            f"{', '.join(alarm['AlarmName'] for alarm in ringing)} ringing",
            "\n".join(f"{alarm.get('AlarmDescription', '')} {alarm.get('StateReason', '')}" for alarm in ringing),
            f"put right what else is wrong here, or see invoke logs agent --env {environment.name}; then they stop",
        )
    return f"{len(found)}, none rings"


def terraform_lock(environment: Environment) -> str:
    """Whether somebody holds Terraform's lock: a deploy at work, or one that died."""
    held = state.lock(environment)
    if held is not None:
        raise lock_held(environment, held)
    return "free"


def missing_images(environment: Environment, uris: list[str]) -> list[str]:
    """Which of these images are not in the environment's ECR; those of other registries are not looked for.

    Args:
        environment: whose ECR.
        uris: images as task definitions name them, by tag or by digest.
    """
    registry = _registry(environment)
    wanted: dict[str, set[str]] = defaultdict(set)
    for uri in uris:
        repository, separator, version = _parts(uri.removeprefix(registry))
        if uri.startswith(registry):
            wanted[repository].add(separator + version)
    gone = {repository: versions - _versions(environment, repository) for repository, versions in wanted.items()}
    return [f"{registry}{repository}{version}" for repository in sorted(gone) for version in sorted(gone[repository])]


def critical_findings(environment: Environment, uris: Iterable[str]) -> dict[str, int]:
    """How many critical findings ECR's scan has for these images; images without any are left out.

    DescribeImages tells of findings no longer, where ECR scans with AWS's own technology:
    https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html

    Args:
        environment: whose ECR.
        uris: images as task definitions name them, by tag or by digest; those of other registries are left out.
    """
    ours = sorted({uri for uri in uris if uri.startswith(_registry(environment))})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        counts = dict(zip(ours, pool.map(lambda uri: _critical(environment, uri), ours), strict=True))
    return {uri: count for uri, count in counts.items() if count}


def _critical(environment: Environment, uri: str) -> int:
    """Critical findings in an image; none while it has not been scanned."""
    ecr = client(environment, "ecr")
    repository, separator, version = _parts(uri.removeprefix(_registry(environment)))
    image = {"imageDigest" if separator == "@" else "imageTag": version}
    try:
        answer = ecr.describe_image_scan_findings(repositoryName=repository, imageId=image, maxResults=1)
    except (
        ecr.exceptions.ScanNotFoundException,
        ecr.exceptions.ImageNotFoundException,
        ecr.exceptions.RepositoryNotFoundException,
    ):
        return 0
    counts: dict[str, int] = answer.get("imageScanFindings", {}).get("findingSeverityCounts", {})
    return counts.get("CRITICAL", 0)


def _registry(environment: Environment) -> str:
    return f"{environment.aws_account_id}.dkr.ecr.{environment.aws_region}.amazonaws.com/"


def _parts(name: str) -> tuple[str, str, str]:
    """Repository, `@` or `:`, and digest or tag."""
    return name.partition("@") if "@" in name else name.partition(":")


def _versions(environment: Environment, repository: str) -> set[str]:
    """Digests and tags that a repository has, with the sign that stands before them; none when it is gone."""
    there = images.details(environment, repository)
    digests = {f"@{image['imageDigest']}" for image in there}
    return digests | {f":{tag}" for image in there for tag in image.get("imageTags", [])}
