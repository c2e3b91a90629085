# Private subnets and their ways out: NAT gateways, or VPC endpoints of the AWS services that the platform itself uses.
# A task needs ECR (API, registry, and S3 for the layers), Secrets Manager and CloudWatch Logs to start; the agent calls
# ECS, SQS and STS. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html

locals {
  endpoint_services = local.network == "private_endpoints" ? toset(["ecr.api", "ecr.dkr", "ecs", "logs", "secretsmanager", "sqs", "sts"]) : toset([])
}

# Three quarters of the block: tasks and endpoints take an address each.
resource "aws_subnet" "private" {
  count = local.private_subnets

  vpc_id            = local.vpc_id
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, count.index + 1)
  availability_zone = element(data.aws_availability_zones.available.names, count.index)

  tags = { Name = "${local.prefix}_private_${count.index + 1}" }

  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table" "private" {
  count = local.private_route_tables

  vpc_id = local.vpc_id

  tags = { Name = "${local.prefix}_private_${count.index + 1}" }
}

resource "aws_route_table_association" "private" {
  count = local.private_subnets

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index % local.private_route_tables].id
}

resource "aws_eip" "nat" {
  count = local.nat_gateways

  domain = "vpc"

  tags = { Name = "${local.prefix}_nat_${count.index + 1}" }
}

resource "aws_nat_gateway" "this" {
  count = local.nat_gateways

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags = { Name = "${local.prefix}_${count.index + 1}" }

  depends_on = [aws_route.internet]
}

resource "aws_route" "nat" {
  count = local.nat_gateways

  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[count.index].id
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.endpoint_services

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${var.aws_region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = aws_security_group.endpoints[*].id

  tags = { Name = "${local.prefix}_${each.key}" }
}

# Free, and beside NAT gateways too: the layers of images come by it, past what bills each GB.
resource "aws_vpc_endpoint" "s3" {
  count = local.private_subnets == 0 ? 0 : 1

  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${var.aws_region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = aws_route_table.private[*].id

  tags = { Name = "${local.prefix}_s3" }
}

resource "aws_security_group" "endpoints" {
  count = length(local.endpoint_services) == 0 ? 0 : 1

  name        = "${local.prefix}_endpoints"
  description = "VPC endpoints: HTTPS from agent and workflows"
  vpc_id      = local.vpc_id

  tags = { Name = "${local.prefix}_endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = length(local.endpoint_services) == 0 ? 0 : 1

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "Agent and workflows"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.tasks.id

  tags = { Name = "${local.prefix}_endpoints" }
}
