# The agent: a Prefect worker as an ECS service. Terraform describes it; `invoke deploy` rolls a new revision out once
# its image is in ECR, and ECS rolls back by itself when the new tasks do not come up.

locals {
  agent_container = "agent"
  prefect_cloud   = startswith(var.prefect_api_url, "https://api.prefect.cloud/")

  # Prefect Cloud knows API keys, an own server an auth string:
  # https://docs.prefect.io/v3/advanced/security-settings
  prefect_key_variable = local.prefect_cloud ? "PREFECT_API_KEY" : "PREFECT_API_AUTH_STRING"
}

resource "aws_ecs_task_definition" "agent" {
  family                   = "${local.prefix}_agent"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.agent_cpu
  memory                   = var.agent_memory
  execution_role_arn       = aws_iam_role.this["agent_execution"].arn
  task_role_arn            = aws_iam_role.this["agent_task"].arn
  skip_destroy             = true # revisions before are what ECS and `invoke rollback` go back to

  volume {
    name = "scratch"
  }

  # The emulated AWS starts containers on this machine, whatever its processor is.
  dynamic "runtime_platform" {
    for_each = var.aws_endpoint_url == null ? [var.cpu_architecture] : []

    content {
      operating_system_family = "LINUX"
      cpu_architecture        = runtime_platform.value
    }
  }

  container_definitions = jsonencode([{
    name                   = local.agent_container
    image                  = "${aws_ecr_repository.agent.repository_url}:${var.agent_image_tag}"
    essential              = true
    readonlyRootFilesystem = true
    stopTimeout            = 30
    mountPoints            = [{ sourceVolume = "scratch", containerPath = "/tmp", readOnly = false }]
    linuxParameters        = { capabilities = { drop = ["ALL"] }, initProcessEnabled = true }

    environment = [
      { name = "PREFECT_API_URL", value = var.prefect_api_url },
      { name = "PREFECT_PROJECT", value = local.prefix },
      # Prefect's default is 10 s: half of that is what a run would wait for on average before anything happens.
      { name = "PREFECT_WORKER_QUERY_SECONDS", value = "2" },
      # Prefect's default is 30 s: the runs of an agent that died are taken over when it has missed three.
      { name = "PREFECT_WORKER_HEARTBEAT_SECONDS", value = "10" },
      { name = "TASK_EVENTS_QUEUE", value = local.task_events },
    ]
    secrets = [{ name = local.prefect_key_variable, valueFrom = aws_secretsmanager_secret.prefect_key["agent"].arn }]

    healthCheck = {
      command     = ["CMD", "python", "/opt/platform/agent/start_agent.py", "--check"]
      interval    = 30
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this["agent"].name
        awslogs-region        = var.aws_region
        awslogs-stream-prefix = "agent"
      }
    }
  }])
}

resource "aws_ecs_service" "agent" {
  name            = "${local.prefix}_agent"
  cluster         = aws_ecs_cluster.this["agent"].id
  task_definition = aws_ecs_task_definition.agent.arn
  desired_count   = 0 # the rollout starts it, when the image and the key are there
  propagate_tags  = "SERVICE"

  availability_zone_rebalancing = "ENABLED"

  # A new task is up before the old one goes: nothing waits for an agent.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.task_subnet_ids
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = local.assign_public_ip
  }

  # Both belong to the rollout, and to `invoke agent --up` and `--down`.
  lifecycle {
    ignore_changes = [desired_count, task_definition]
  }

  depends_on = [aws_ecs_cluster_capacity_providers.this, aws_iam_role_policy.execution, aws_iam_role_policy.agent_task]
}
