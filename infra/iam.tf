# Four roles. An execution role is what ECS uses to start a task: pull the image, read the key, write logs. A task role
# is what the code inside may do. A statement with "*" is one for which AWS knows no resource:
# https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html

locals {
  arn_suffix         = "${var.aws_region}:${var.aws_account_id}"
  roles              = toset(["agent_execution", "agent_task", "workflow_execution", "workflow_task"])
  workflow_families  = "arn:aws:ecs:${local.arn_suffix}:task-definition/${local.prefix}_workflow_*:*"
  workflow_ecs_tasks = "arn:aws:ecs:${local.arn_suffix}:task/${aws_ecs_cluster.this["workflows"].name}/*"

  # What no role of this environment can get beyond, whatever its policies say; `invoke bootstrap-account` makes it.
  permissions_boundary = "arn:aws:iam::${var.aws_account_id}:policy/${local.prefix}_boundary"

  execution = {
    agent    = { log_group = aws_cloudwatch_log_group.this["agent"].arn, images = aws_ecr_repository.agent.arn }
    workflow = { log_group = aws_cloudwatch_log_group.this["workflows"].arn, images = "arn:aws:ecr:${local.arn_suffix}:repository/${var.environment}_*" }
  }
}

data "aws_iam_policy_document" "ecs_tasks_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    # Only ECS in this account, not ECS on behalf of anybody's.
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.aws_account_id]
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name                 = "${local.prefix}_${each.key}"
  description          = "${replace(each.key, "_", " ")} role of environment ${var.environment}"
  assume_role_policy   = data.aws_iam_policy_document.ecs_tasks_assume.json
  permissions_boundary = local.permissions_boundary
}

data "aws_iam_policy_document" "execution" {
  for_each = local.execution

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${each.value.log_group}:log-stream:*"]
  }

  statement {
    sid       = "Image"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [each.value.images]
  }

  statement {
    sid       = "RegistryLogin"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "PrefectKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.prefect_key[each.key].arn]
  }

  # With any KMS key, but this secret alone: after a change of kms_key_arn the value is under the key before until it is
  # written again. https://docs.aws.amazon.com/secretsmanager/latest/userguide/manage_update-encryption-key.html
  statement {
    sid       = "DecryptPrefectKey"
    actions   = ["kms:Decrypt"]
    resources = ["arn:aws:kms:${var.aws_region}:*:key/*"]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${var.aws_region}.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:SecretARN"
      values   = [aws_secretsmanager_secret.prefect_key[each.key].arn]
    }
  }
}

resource "aws_iam_role_policy" "execution" {
  for_each = local.execution

  name   = "start_tasks"
  role   = aws_iam_role.this["${each.key}_execution"].name
  policy = data.aws_iam_policy_document.execution[each.key].json
}

data "aws_iam_policy_document" "agent_task" {
  statement {
    sid       = "StartWorkflows"
    actions   = ["ecs:RunTask"]
    resources = [local.workflow_families]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this["workflows"].arn]
    }
  }

  statement {
    sid       = "WatchAndStopWorkflows"
    actions   = ["ecs:DescribeTasks", "ecs:StopTask"]
    resources = [local.workflow_ecs_tasks]
  }

  # AWS evaluates ListTasks on "*" unless the request names a container instance, and Fargate has none. The cluster is a
  # condition key. https://github.com/cdklabs/construct-hub/pull/1207
  statement {
    sid       = "FindWorkflows"
    actions   = ["ecs:ListTasks"]
    resources = ["*"]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this["workflows"].arn]
    }
  }

  statement {
    sid       = "TagWorkflows"
    actions   = ["ecs:TagResource"]
    resources = [local.workflow_ecs_tasks]

    condition {
      test     = "StringEquals"
      variable = "ecs:CreateAction"
      values   = ["RunTask"]
    }
  }

  statement {
    sid       = "RegisterWorkflows"
    actions   = ["ecs:RegisterTaskDefinition"]
    resources = [local.workflow_families]
  }

  # AWS knows no resource for any of these.
  statement {
    sid = "KeepTaskDefinitions"
    actions = [
      "ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitionFamilies",
      "ecs:ListTaskDefinitions",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "GiveWorkflowsTheirRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.this["workflow_execution"].arn, aws_iam_role.this["workflow_task"].arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }

  statement {
    sid       = "ReadTaskEvents"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ChangeMessageVisibility"]
    resources = [aws_sqs_queue.task_events.arn]
  }

  statement {
    sid       = "ReadLogsOfCrashedWorkflows"
    actions   = ["logs:FilterLogEvents", "logs:GetLogEvents"]
    resources = [aws_cloudwatch_log_group.this["workflows"].arn, "${aws_cloudwatch_log_group.this["workflows"].arn}:log-stream:*"]
  }
}

resource "aws_iam_role_policy" "agent_task" {
  name   = "run_workflows"
  role   = aws_iam_role.this["agent_task"].name
  policy = data.aws_iam_policy_document.agent_task.json
}

resource "aws_iam_role_policy_attachment" "workflow_task" {
  for_each = toset(var.workflow_policy_arns)

  role       = aws_iam_role.this["workflow_task"].name
  policy_arn = each.key
}
