# Two ECS clusters, so that roles and limits of agent and workflows stay apart.

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:Container Insights would be nearly half of what an idle environment costs. Alarms and `invoke status` do without.
  for_each = toset(["agent", "workflows"])

  name = "${local.prefix}_${each.key}"

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  for_each = aws_ecs_cluster.this

  cluster_name       = each.value.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]

  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["agent", "workflows"])

  name              = "${local.prefix}_${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.kms_key_arn
}
