# The whole platform on this machine: an emulated AWS, a real Prefect server, real containers. No account needed.
aws_account_id   = "000000000000"
aws_region       = "eu-west-1"
aws_endpoint_url = "http://127.0.0.1:4566"

# As the containers know this machine; its page opens at http://127.0.0.1:4200
prefect_api_url = "http://host.docker.internal:4200/api"

# Containers have their own Docker network; the emulated VPC carries no traffic to log.
network   = "public"
flow_logs = false

# What two processor cores and a few GiB of memory can take; the other runs wait.
concurrency_limit = 8

workflow_cpu       = 256
workflow_memory    = 512
log_retention_days = 7
