# The Prefect API key. Terraform makes the place for it and never sees the value: `invoke deploy` puts it in.

resource "aws_secretsmanager_secret" "prefect_key" {
  #checkov:skip=CKV2_AWS_57:Only Prefect can make a new key, AWS has no function for that; `invoke rotate-key` puts it in without downtime.
  name        = "${local.prefix}_prefect_key"
  description = "Key of the Prefect API for agent and workflows of environment ${var.environment}"
  kms_key_id  = local.kms_key_arn

  # The value can be had again from Prefect, and a deploy right after a destroy must find the name free.
  recovery_window_in_days = 0
}
