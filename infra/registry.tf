# The agent's images. Repositories of workflows are made by `invoke register`.

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

# How far `invoke rollback` can go back: a revision whose image is gone can't start.
resource "aws_ecr_lifecycle_policy" "agent" {
  repository = aws_ecr_repository.agent.name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Keep the last ${var.image_retention_count} images"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.image_retention_count }
      action       = { type = "expire" }
    }]
  })
}
