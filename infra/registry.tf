# The agent's images. Repositories of workflows are made by `invoke register`. There is no lifecycle policy: it would know
# the age of images but not which of them run. `invoke deploy` deletes those that are old and not in use.

resource "aws_ecr_repository" "agent" {
  name                 = "${local.prefix}_agent"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = true # every image can be built again from its commit

  # What a repository is encrypted with is fixed when it is made: another key is no reason to delete its images.
  lifecycle {
    ignore_changes = [encryption_configuration]
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.kms_key_arn
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}
