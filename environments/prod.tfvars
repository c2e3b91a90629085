# Where workflows run for real. A push to main deploys it.
# Put in your own AWS account and Prefect workspace.
aws_account_id  = "111111111111"
aws_region      = "eu-west-1"
prefect_api_url = "https://api.prefect.cloud/api/accounts/00000000-0000-0000-0000-000000000000/workspaces/00000000-0000-0000-0000-000000000000"

network            = "private_nat" # costs a NAT gateway; workflows have one fixed public address
vpc_cidr           = "10.22.0.0/16"
log_retention_days = 365
