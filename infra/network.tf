# The network that agent and workflows run in. They open connections and accept none.
# Either one is made, in the three ways that variable `network` describes, or an existing VPC is used as it is.

locals {
  prefix       = "${var.environment}_dataflow_automation"
  zone_count   = 3
  make_network = var.vpc_id == null
  network      = local.make_network ? var.network : "existing"

  public_subnet_count  = { public = local.zone_count, private_nat = var.nat_gateway_count }
  public_subnets       = lookup(local.public_subnet_count, local.network, 0)
  private_subnets      = startswith(local.network, "private") ? local.zone_count : 0
  nat_gateways         = local.network == "private_nat" ? var.nat_gateway_count : 0
  private_route_tables = local.private_subnets == 0 ? 0 : max(local.nat_gateways, 1)

  vpc_id           = local.make_network ? aws_vpc.this[0].id : var.vpc_id
  subnet_ids       = { public = aws_subnet.public[*].id, existing = var.subnet_ids }
  task_subnet_ids  = lookup(local.subnet_ids, local.network, aws_subnet.private[*].id)
  assign_public_ip = local.make_network ? var.network == "public" : var.assign_public_ip
}

# Only regular zones, and of these only where Fargate is:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/AWS_Fargate-Regions.html
data "aws_availability_zones" "available" {
  state            = "available"
  exclude_zone_ids = ["apne1-az3", "usw1-az2"]

  filter {
    name   = "zone-name"
    values = formatlist("${var.aws_region}%s", ["a", "b", "c", "d", "e", "f"])
  }
}

data "aws_subnet" "existing" {
  for_each = toset(var.subnet_ids)

  id = each.key

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.vpc_id
      error_message = "Subnet ${self.id} belongs to ${self.vpc_id} and not to vpc_id."
    }
  }
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_12:Nothing is in the default group. AWS makes it without tags, and the deploy role may touch only what carries the environment's.
  count = local.make_network ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = local.prefix }
}

resource "aws_internet_gateway" "this" {
  count = local.public_subnets == 0 ? 0 : 1

  vpc_id = local.vpc_id

  tags = { Name = local.prefix }
}

# Public subnets share the first quarter of the block.
resource "aws_subnet" "public" {
  count = local.public_subnets

  vpc_id            = local.vpc_id
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)
  availability_zone = element(data.aws_availability_zones.available.names, count.index)

  tags = { Name = "${local.prefix}_public_${count.index + 1}" }

  lifecycle {
    ignore_changes = [availability_zone] # a zone that AWS adds must not move a subnet
  }
}

resource "aws_route_table" "public" {
  count = local.public_subnets == 0 ? 0 : 1

  vpc_id = local.vpc_id

  tags = { Name = "${local.prefix}_public" }
}

resource "aws_route" "internet" {
  count = local.public_subnets == 0 ? 0 : 1

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count = local.public_subnets

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_security_group" "tasks" {
  name        = local.prefix
  description = "Agent and workflows: no ingress, egress to everywhere"
  vpc_id      = local.vpc_id

  tags = { Name = local.prefix }
}

resource "aws_vpc_security_group_egress_rule" "anywhere" {
  security_group_id = aws_security_group.tasks.id
  description       = "Prefect API, AWS APIs and whatever the workflows talk to"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"

  tags = { Name = local.prefix }
}
