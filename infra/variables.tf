# The settings of an environment. Their values stand in environments/<env>.tfvars; Python checks the same rules
# before Terraform starts (environments/settings.py), these checks are for those who run Terraform by hand.

variable "environment" {
  description = "Name of the environment; every name in AWS and the Prefect project start with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,15}$", var.environment))
    error_message = "An environment's name is 2 to 16 lower case letters and digits, a letter first."
  }
}

variable "aws_account_id" {
  description = "The AWS account the environment lives in; any other account is refused."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.aws_account_id))
    error_message = "aws_account_id must be the 12 digits of an AWS account."
  }
}

variable "aws_region" {
  description = "The AWS region the environment lives in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region must be an AWS region such as eu-west-1."
  }
}

variable "aws_endpoint_url" {
  description = "Where the emulated AWS of environment local answers; not set on AWS."
  type        = string
  default     = null

  validation {
    condition     = var.aws_endpoint_url == null || can(regex("^http://127\\.0\\.0\\.1:[0-9]{2,5}$", var.aws_endpoint_url))
    error_message = "aws_endpoint_url must be a loopback URL with a port such as http://127.0.0.1:4566."
  }
}

variable "prefect_api_url" {
  description = "URL of the Prefect API as the containers reach it: a Prefect Cloud workspace or an own server."
  type        = string

  validation {
    condition     = can(regex("^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/api(/accounts/[0-9a-f-]{36}/workspaces/[0-9a-f-]{36})?$", var.prefect_api_url))
    error_message = "prefect_api_url must be the URL of a Prefect API, http(s)://.../api..."
  }
}

variable "vpc_cidr" {
  description = "Private IPv4 block of the VPC; the three subnets are cut from it."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("^(10|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.", var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr must be a private IPv4 block of size /16 to /24."
  }
}

variable "agent_image_tag" {
  description = "Tag of the agent's image in its ECR repository: a hash of the image's content."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{16}$", var.agent_image_tag))
    error_message = "agent_image_tag must be the 16 hexadecimal digits that invoke deploy computes."
  }
}

variable "agent_count" {
  description = "How many agents run; invoke agent --up and --down change it at run time."
  type        = number
  default     = 1

  validation {
    condition     = var.agent_count >= 0 && var.agent_count <= 10 && floor(var.agent_count) == var.agent_count
    error_message = "agent_count must be a whole number from 0 to 10."
  }
}

variable "agent_cpu" {
  description = "CPU units of the agent; 1024 is one vCPU."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.agent_cpu)
    error_message = "agent_cpu must be a size that Fargate offers: 256, 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "agent_memory" {
  description = "Memory of the agent in MiB; Fargate offers certain pairs of cpu and memory."
  type        = number
  default     = 512

  validation {
    condition     = var.agent_memory >= 2 * var.agent_cpu && var.agent_memory <= 8 * var.agent_cpu
    error_message = "agent_memory must be two to eight times agent_cpu."
  }
}

variable "workflow_cpu" {
  description = "CPU units of a workflow that asks for nothing else."
  type        = number
  default     = 512

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.workflow_cpu)
    error_message = "workflow_cpu must be a size that Fargate offers: 256, 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "workflow_memory" {
  description = "Memory in MiB of a workflow that asks for nothing else."
  type        = number
  default     = 1024

  validation {
    condition     = var.workflow_memory >= 2 * var.workflow_cpu && var.workflow_memory <= 8 * var.workflow_cpu
    error_message = "workflow_memory must be two to eight times workflow_cpu."
  }
}

variable "execution_environment" {
  description = "Where a workflow runs that asks for nothing else; EXECUTION_ENVIRONMENTS in environments/settings.py lists the choices."
  type        = string
  default     = "ecs_fargate"
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps the logs of agent and workflows."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of the periods that CloudWatch Logs offers."
  }
}
