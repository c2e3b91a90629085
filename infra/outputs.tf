output "aws_region" {
  description = "Region of the environment."
  value       = var.aws_region
}

output "agent_cluster" {
  description = "Name of the ECS cluster of the agent."
  value       = aws_ecs_cluster.this["agent"].name
}

output "agent_service" {
  description = "Name of the agent's ECS service."
  value       = aws_ecs_service.agent.name
}

output "agent_task_definition_arn" {
  description = "The revision of the agent's task definition that should be running."
  value       = aws_ecs_task_definition.agent.arn
}

output "agent_image" {
  description = "The agent's image in ECR, with its tag."
  value       = "${aws_ecr_repository.agent.repository_url}:${var.agent_image_tag}"
}

output "agent_log_group" {
  description = "CloudWatch log group of the agent."
  value       = aws_cloudwatch_log_group.this["agent"].name
}

output "workflows_cluster_arn" {
  description = "ARN of the ECS cluster of the workflows."
  value       = aws_ecs_cluster.this["workflows"].arn
}

output "workflows_log_group" {
  description = "CloudWatch log group of the workflows."
  value       = aws_cloudwatch_log_group.this["workflows"].name
}

output "workflow_execution_role_arn" {
  description = "Role by which ECS starts workflows."
  value       = aws_iam_role.this["workflow_execution"].arn
}

output "workflow_task_role_arn" {
  description = "Role that workflows have while they run."
  value       = aws_iam_role.this["workflow_task"].arn
}

output "subnet_ids" {
  description = "Subnets that agent and workflows run in."
  value       = local.task_subnet_ids
}

output "security_group_id" {
  description = "Security group of agent and workflows."
  value       = aws_security_group.tasks.id
}

output "prefect_key_secret_arn" {
  description = "Secret that holds the agent's Prefect API key."
  value       = aws_secretsmanager_secret.prefect_key["agent"].arn
}

output "workflow_prefect_key_secret_arn" {
  description = "Secret that holds the workflows' Prefect API key."
  value       = aws_secretsmanager_secret.prefect_key["workflow"].arn
}

output "task_events_queue" {
  description = "Name of the SQS queue of ECS task state changes."
  value       = aws_sqs_queue.task_events.name
}
