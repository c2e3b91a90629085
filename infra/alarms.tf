# Alarms for what nobody looks at by night. They tell the SNS topic of the settings, if there is one, when something goes
# wrong and when it is well again; `invoke status` shows those that ring in any case. An alarm costs about $0.10 a month.

locals {
  alarms = {
    # Each task on Fargate sends this metric, at no charge; that none comes means that no task runs:
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cloudwatch-metrics.html
    # `invoke agent --down` switches this alarm's actions off, and whatever starts the agent on (infra/alarms.py).
    agent_down = {
      description = "No agent runs; workflows wait. invoke status --env ${var.environment} tells why."
      namespace   = "AWS/ECS"
      metric      = "CPUUtilization"
      dimensions  = { ClusterName = aws_ecs_cluster.this["agent"].name, ServiceName = aws_ecs_service.agent.name }
      statistic   = "SampleCount"
      comparison  = "LessThanThreshold"
      threshold   = 1
      period      = 60
      periods     = 5
      missing     = "breaching"
    }

    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
    agent_crash_loop = {
      description = "Agents stop by themselves again and again. invoke logs agent --env ${var.environment} shows their last words."
      namespace   = "AWS/Events"
      metric      = "Invocations"
      dimensions  = { RuleName = aws_cloudwatch_event_rule.agent_crashes.name }
      statistic   = "Sum"
      comparison  = "GreaterThanOrEqualToThreshold"
      threshold   = 3
      period      = 900
      periods     = 1
      missing     = "notBreaching"
    }

    # The agent logs this once a minute while AWS refuses to start tasks.
    capacity = {
      description = "Runs wait for capacity of AWS for more than 15 minutes. invoke status --env ${var.environment} lists them."
      namespace   = local.prefix
      metric      = local.waiting_metric
      dimensions  = {}
      statistic   = "SampleCount"
      comparison  = "GreaterThanThreshold"
      threshold   = 0
      period      = 300
      periods     = 3
      missing     = "notBreaching"
    }

    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    dead_letters = {
      description = "The agent could not process task state changes. invoke status --env ${var.environment} says what to do."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.dead_letters.name }
      statistic   = "Maximum"
      comparison  = "GreaterThanThreshold"
      threshold   = 0
      period      = 300
      periods     = 1
      missing     = "notBreaching"
    }
  }
  waiting_metric = "RunsWaitForCapacity"
  alarm_actions  = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${local.prefix}_${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  lifecycle {
    ignore_changes = [actions_enabled]
  }
}

# CloudWatch charges for a metric in the hours in which it has values, so this one costs nothing while no run waits.
resource "aws_cloudwatch_log_metric_filter" "waiting" {
  name           = "${local.prefix}_waiting"
  log_group_name = aws_cloudwatch_log_group.this["agent"].name
  pattern        = "\"runs wait for capacity\"" # WAITING in environments/run_terms.py

  metric_transformation {
    namespace = local.prefix
    name      = local.waiting_metric
    value     = "1"
  }
}

# Tasks of the agent that stopped by themselves: neither a rollout nor a person stopped them. The queue is there for
# EventBridge to count deliveries, and keeps for two weeks what ECS forgets after an hour.
resource "aws_cloudwatch_event_rule" "agent_crashes" {
  name        = "${local.prefix}_agent_crashes"
  description = "Tasks of the agent that stopped by themselves"

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [aws_ecs_cluster.this["agent"].arn]
      lastStatus = ["STOPPED"]
      stopCode   = ["EssentialContainerExited", "TaskFailedToStart"]
    }
  })
}

resource "aws_cloudwatch_event_target" "agent_crashes" {
  rule = aws_cloudwatch_event_rule.agent_crashes.name
  arn  = aws_sqs_queue.agent_crashes.arn

  target_id = "queue"
}

resource "aws_sqs_queue" "agent_crashes" {
  name                      = "${local.prefix}_agent_crashes"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 14 * 24 * 60 * 60
}

resource "aws_sqs_queue_policy" "agent_crashes" {
  queue_url = aws_sqs_queue.agent_crashes.id
  policy    = data.aws_iam_policy_document.agent_crashes_queue.json
}

data "aws_iam_policy_document" "agent_crashes_queue" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.agent_crashes.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.agent_crashes.arn]
    }
  }
}
