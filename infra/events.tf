# ECS tells of every task that stopped; the agent's observer reads that from a queue and sees to runs whose task died.
# Events that nobody could process end in the dead-letter queue.

locals {
  task_events = "${local.prefix}_task_events"
}

resource "aws_sqs_queue" "task_events" {
  name                       = local.task_events
  sqs_managed_sse_enabled    = true
  message_retention_seconds  = 4 * 24 * 60 * 60
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = 30 # how long a message is hidden that an agent died with; agent/observer.py relies on it
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${local.task_events}_dead_letters"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 14 * 24 * 60 * 60
}

# Policies of their own, so that both queues are made side by side: AWS takes half a minute for each.
resource "aws_sqs_queue_redrive_policy" "task_events" {
  queue_url = aws_sqs_queue.task_events.id

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 5
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.task_events.arn]
  })
}

resource "aws_cloudwatch_event_rule" "task_events" {
  name        = local.task_events
  description = "The end of the workflows' ECS tasks"

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]

    # A task on Fargate has seven states before, of which nothing depends.
    detail = { clusterArn = [aws_ecs_cluster.this["workflows"].arn], lastStatus = ["STOPPED"] }
  })
}

resource "aws_cloudwatch_event_target" "task_events" {
  rule = aws_cloudwatch_event_rule.task_events.name
  arn  = aws_sqs_queue.task_events.arn

  # With a generated one, a run that dies here would leave a second target, and each event would come twice.
  target_id = "queue"
}

resource "aws_sqs_queue_policy" "task_events" {
  queue_url = aws_sqs_queue.task_events.id
  policy    = data.aws_iam_policy_document.task_events_queue.json
}

data "aws_iam_policy_document" "task_events_queue" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.task_events.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.task_events.arn]
    }
  }
}
