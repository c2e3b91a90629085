"""AWS: the Terraform root module of an environment, and the Python that runs it.

The story: `account.bootstrap` makes once what an account needs: the bucket for Terraform's state (`state`), a KMS key
(`encryption`), and the roles (`roles`) with what each may do (`permissions`) and for whom (`trust`). `plans` shows what
would change and keeps it for a deploy, and `terraform.apply` turns the settings into AWS resources and gives back
`Outputs`, plain values that the other components work with; `terraform_process` is Terraform as a process, and
`adoption` takes up what a dead run made and could not write down. `images` builds, names and pushes container images;
`aws` is where boto3 clients come from. This floor stands on `environments` and knows nothing of Prefect, the agent or
workflows beyond their names.
"""
