"""The agent: its image, the Prefect project it serves, and its rollout as an ECS service.

The story: `image` names, builds and pushes the agent's image; `key` puts the Prefect key into Secrets Manager;
`project` creates the work pool, whose base job template carries all that a run on ECS needs; `rollout` starts the new
revision and waits until ECS calls the service steady and Prefect shows the agent online. `start_agent` is what runs
inside the container. This floor stands on `environments` and `infra`.
"""
