# Where workflows are tried out. A push to feature/** deploys it.
# Put in your own AWS account and Prefect workspace.
aws_account_id  = "111111111111"
aws_region      = "eu-west-1"
prefect_api_url = "https://api.prefect.cloud/api/accounts/00000000-0000-0000-0000-000000000000/workspaces/00000000-0000-0000-0000-000000000000"

network            = "public" # no gateway to pay for; prod has private subnets
vpc_cidr           = "10.20.0.0/16"
log_retention_days = 7
