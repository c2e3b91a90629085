"""AWS: the Terraform root module of an environment, and the Python that runs it.

The story: `state.ensure_bucket` makes the bucket that holds Terraform's state when it is missing. `terraform.apply`
then turns the settings into AWS resources and gives back `Outputs`, plain values that the other components work
with. `images` builds, names and pushes container images; `aws` is where boto3 clients come from. This floor stands on
`environments` and knows nothing of Prefect, the agent or workflows beyond their names.
"""
