# The KMS key of logs and Prefect key: the one that `invoke bootstrap-account` made for the environment, unless the
# settings name another. Deploying may use a key and not make or change one.

locals {
  kms_key_arn = var.kms_key_arn == null ? data.aws_kms_alias.this[0].target_key_arn : var.kms_key_arn
}

data "aws_kms_alias" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  name = "alias/${local.prefix}"
}
