# The settings of an environment. Their values stand in environments/<env>.tfvars; Python checks the same rules
# before Terraform starts (environments/settings.py), and that nothing is set without effect; these checks are for those
# who run Terraform by hand.

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

  validation {
    condition     = !can(regex("^(cn|us-gov|eusc|us-iso[bf]?|eu-isoe)-", var.aws_region))
    error_message = "aws_region must be a region of AWS partition aws: ARNs and host names differ in China, GovCloud (US), the European Sovereign Cloud and the isolated regions."
  }
}

variable "aws_endpoint_url" {
  description = "Where the emulated AWS of environment local answers; not set on AWS."
  type        = string
  default     = null

  validation {
    condition     = var.aws_endpoint_url == null || can(regex("^http://127\\.0\\.0\\.[0-9]{1,3}:[0-9]{2,5}$", var.aws_endpoint_url))
    error_message = "aws_endpoint_url must be a loopback URL with a port such as http://127.0.0.1:4566."
  }
}

variable "prefect_api_url" {
  description = "URL of the Prefect API as the containers reach it: a Prefect Cloud workspace or an own server."
  type        = string

  validation {
    condition     = can(regex("^https?://[A-Za-z0-9-]{1,63}([.][A-Za-z0-9-]{1,63})*(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/api(/accounts/[0-9a-f-]{36}/workspaces/[0-9a-f-]{36})?$", var.prefect_api_url))
    error_message = "prefect_api_url must be the URL of a Prefect API, http(s)://.../api..."
  }
}

variable "vpc_id" {
  description = "An existing VPC to run in, together with subnet_ids; without, a network is made as `network` says."
  type        = string
  default     = null

  validation {
    condition     = var.vpc_id == null || can(regex("^vpc-[0-9a-f]{8,17}$", var.vpc_id))
    error_message = "vpc_id must be the ID of a VPC such as vpc-0123456789abcdef0."
  }

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "vpc_id and subnet_ids go together."
  }
}

variable "subnet_ids" {
  description = "Subnets of vpc_id that agent and workflows run in; from there they must reach Prefect and AWS's services."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]{8,17}$", id))]) && length(var.subnet_ids) <= 16 && length(distinct(var.subnet_ids)) == length(var.subnet_ids)
    error_message = "subnet_ids must be up to 16 different IDs of subnets such as subnet-0123456789abcdef0."
  }
}

variable "assign_public_ip" {
  description = "Whether tasks in subnet_ids get public IP addresses: true for public subnets, false for private ones with a NAT gateway or VPC endpoints."
  type        = bool
  default     = false

  validation {
    condition     = !var.assign_public_ip || var.vpc_id != null
    error_message = "assign_public_ip is for an existing VPC; for a new one, network says it."
  }
}

variable "network" {
  description = <<-TEXT
    The network that is made when vpc_id names none. "private_nat": private subnets, out through NAT gateways with fixed
    addresses, which AWS charges by the hour. "public": public subnets, each task with a public IP address, which AWS
    charges by the hour, too, but much less; no rule lets anything in. "private_endpoints": private subnets with VPC
    endpoints of the AWS services that the platform itself uses; nothing else is in reach, neither Prefect Cloud nor
    package indexes: for an own Prefect server inside the network.
  TEXT
  type        = string
  default     = "private_nat"

  validation {
    condition     = contains(["public", "private_nat", "private_endpoints"], var.network)
    error_message = "network must be public, private_nat or private_endpoints."
  }

  validation {
    condition     = var.network != "private_endpoints" || !startswith(var.prefect_api_url, "https://api.prefect.cloud/")
    error_message = "network private_endpoints does not reach Prefect Cloud."
  }
}

variable "nat_gateway_count" {
  description = "NAT gateways of network private_nat: 1 is the cheapest, 3 is one per zone, so that a zone that fails takes none of the others along."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2, 3], var.nat_gateway_count)
    error_message = "nat_gateway_count must be 1, 2 or 3."
  }
}

variable "flow_logs" {
  description = "Whether a network that is made records its connections, accepted and rejected, in CloudWatch Logs."
  type        = bool
  default     = true
}

variable "vpc_cidr" {
  description = "Private IPv4 block of the VPC that is made; its subnets are cut from it."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("^(10|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.", var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24 && cidrhost(var.vpc_cidr, 0) == split("/", var.vpc_cidr)[0], false)
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

variable "cpu_architecture" {
  description = "Processors that agent and workflows run on, and that their images are built for; ARM64 (Graviton) costs less. In local it is this machine's."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture must be X86_64 or ARM64."
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

variable "concurrency_limit" {
  description = "How many runs of the Prefect project are at work at the same time; null leaves it to Prefect's page."
  type        = number
  default     = null

  validation {
    condition     = var.concurrency_limit == null || try(var.concurrency_limit >= 1 && var.concurrency_limit <= 10000 && floor(var.concurrency_limit) == var.concurrency_limit, false)
    error_message = "concurrency_limit must be a whole number from 1 to 10000."
  }
}

variable "workflow_policy_arns" {
  description = "Managed IAM policies that workflows have besides what the platform gives them; the permissions boundary limits these too."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.workflow_policy_arns : can(regex("^arn:aws:iam::(aws|[0-9]{12}):policy/[A-Za-z0-9_+=,.@/-]{1,250}$", arn))]) && length(var.workflow_policy_arns) <= 10 && length(distinct(var.workflow_policy_arns)) == length(var.workflow_policy_arns)
    error_message = "workflow_policy_arns must be up to 10 different ARNs of managed policies such as arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess."
  }
}

variable "extra_tags" {
  description = "Tags for everything on AWS besides the platform's own: environment, project, managed_by and Name."
  type        = map(string)
  default     = {}

  validation {
    condition = length(var.extra_tags) <= 30 && alltrue([
      for key, value in var.extra_tags : can(regex("^[A-Za-z0-9_./=+:@-]{1,128}$", key)) && can(regex("^[A-Za-z0-9_./=+:@-]{1,256}$", value)) && !startswith(lower(key), "aws:")
    ])
    error_message = "extra_tags must be up to 30 tags of letters, digits and _./=+:@-, whose keys do not begin with aws:."
  }

  validation {
    condition     = length(distinct(concat([for key in keys(var.extra_tags) : lower(key)], ["environment", "project", "managed_by", "name"]))) == length(var.extra_tags) + 4
    error_message = "The keys of extra_tags must differ from each other and from environment, project, managed_by and name by more than upper and lower case."
  }
}

variable "kms_key_arn" {
  description = <<-TEXT
    An existing customer managed KMS key for logs, images and the Prefect key; its key policy must let CloudWatch Logs use
    it. Without, logs and the Prefect key are encrypted with the key that `invoke bootstrap-account` makes, and images
    with the one that AWS manages for ECR. After a change, deploy encrypts the Prefect key with the new key; logs that are
    there and ECR repositories keep the key that they were created with.
  TEXT
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws:kms:${var.aws_region}:[0-9]{12}:key/[a-z0-9-]{36}$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key in aws_region."
  }
}

variable "alarm_topic_arn" {
  description = <<-TEXT
    SNS topic that alarms tell: no agent runs, agents crash in a loop, task state changes that nobody could process. Its
    access policy must let CloudWatch publish, and if it is encrypted its KMS key policy, too. Without, alarms are there
    and `invoke status` shows them.
  TEXT
  type        = string
  default     = null

  validation {
    condition     = var.alarm_topic_arn == null || can(regex("^arn:aws:sns:${var.aws_region}:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_topic_arn))
    error_message = "alarm_topic_arn must be the ARN of an SNS topic in aws_region that is not a FIFO topic."
  }
}

variable "container_insights" {
  description = "CloudWatch Container Insights for both clusters: metrics of each service and task definition, billed one by one while tasks run."
  type        = bool
  default     = false
  nullable    = false
}

variable "image_retention_count" {
  description = "How many of the newest images each ECR repository keeps, the agent's and those of workflows; images in use are kept however old they are."
  type        = number
  default     = 100

  validation {
    condition     = var.image_retention_count >= 10 && var.image_retention_count <= 1000 && floor(var.image_retention_count) == var.image_retention_count
    error_message = "image_retention_count must be a whole number from 10 to 1000."
  }
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps logs."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of the periods that CloudWatch Logs offers."
  }
}
