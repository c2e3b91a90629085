terraform {
  required_version = ">= 1.10.0" # the first with native locks in S3

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # Bucket, key and region come from the environment's settings, at init.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region              = var.aws_region
  allowed_account_ids = [var.aws_account_id]

  default_tags {
    tags = merge(var.extra_tags, {
      environment = var.environment
      project     = "dataflow-automation-infra"
      managed_by  = "terraform"
    })
  }

  # What became of a revision of the agent, noted by agent/releases.py.
  ignore_tags {
    keys = ["dataflow_automation:rollout"]
  }

  dynamic "endpoints" {
    for_each = var.aws_endpoint_url[*]

    content {
      cloudwatch     = endpoints.value
      ec2            = endpoints.value
      ecr            = endpoints.value
      ecs            = endpoints.value
      events         = endpoints.value
      iam            = endpoints.value
      kms            = endpoints.value
      logs           = endpoints.value
      secretsmanager = endpoints.value
      sqs            = endpoints.value
      sts            = endpoints.value
    }
  }
}
