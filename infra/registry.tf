# The agent's images. Repositories of workflows are made by `invoke register`.

resource "aws_ecr_repository" "agent" {
  name                 = "${local.prefix}_agent"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = true # every image can be built again from its commit

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "agent" {
  repository = aws_ecr_repository.agent.name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Keep the last 10 images, enough to roll back"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 10 }
      action       = { type = "expire" }
    }]
  })
}
