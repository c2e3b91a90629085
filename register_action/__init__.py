"""Register: any folder with Prefect flows becomes deployments that run on the environment's Fargate.

The story: `source` finds the folder, or takes it from a commit of a git repository (`commits`, `git`). `workflow`
reads it without running its code: which files belong to it (`workflow_files`), its flows (`discovery`), its
`prefect.yaml` (`prefect_yaml`, by way of `yaml_text`, `prefect_schema` and `schedules`), what it asks pip for
(`packages`, `requirement`). `registered` knows what the project has of it already. `workflow_image` builds one image
for all its flows, on top of the agent's, and asks the flows inside it for their parameters. `changes` works out what
has to happen to the deployments, `deployments` does it, `report` tells of it. `removal` takes workflows back, and
previews whose branch has no open pull request (`pull_requests`); `runs` starts deployments and follows them.
`action.yml` is all this as a GitHub Action. This floor stands on `environments`, and on what `infra` offers for images.
"""
