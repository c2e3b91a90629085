# The Prefect API key. Terraform makes the place for it and never sees the value: `invoke deploy` puts it in.

resource "aws_secretsmanager_secret" "prefect_key" {
  name        = "${local.prefix}_prefect_key"
  description = "Key of the Prefect API for agent and workflows of environment ${var.environment}"

  # The value can be had again from Prefect, and a deploy right after a destroy must find the name free.
  recovery_window_in_days = 0
}
