"""Register: any folder with Prefect flows becomes deployments that run on the environment's Fargate.

The story: `discovery` finds the flows of a folder without running its code. `workflow_image` builds one image for all
of them, on top of the agent's, and pushes it; the flows are then imported inside that image, which tells their
parameters. `deployments` creates or updates one deployment `<flow>/<env>` for each. `runs` starts a deployment and
follows its run. This floor stands on `environments`, and on what `infra` offers for images.
"""
