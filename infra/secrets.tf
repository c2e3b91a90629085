# The Prefect API keys, one for the agent and one for the workflows: neither can read the other's. Terraform makes the
# places for them and never sees the values: `invoke deploy` puts them in.

resource "aws_secretsmanager_secret" "prefect_key" {
  #checkov:skip=CKV2_AWS_57:Only Prefect can make a new key, AWS has no function for that; `invoke rotate-key` puts it in without downtime.
  for_each = { agent = "prefect_key", workflow = "prefect_key_workflow" }

  name        = "${local.prefix}_${each.value}"
  description = "Key of the Prefect API for the ${each.key} part of environment ${var.environment}"
  kms_key_id  = local.kms_key_arn

  # The value can be had again from Prefect, and a deploy right after a destroy must find the name free.
  recovery_window_in_days = 0
}

moved {
  from = aws_secretsmanager_secret.prefect_key
  to   = aws_secretsmanager_secret.prefect_key["agent"]
}
