"""The agent: its image, the Prefect project it serves, and its rollout as an ECS service.

The story: `image` names, builds and pushes the agent's image; `key` puts the Prefect key into Secrets Manager;
`project` creates the work pool, whose base job template carries all that a run on ECS needs; `rollout` starts the new
revision and waits until ECS calls the service steady and Prefect shows the agent online, or goes back and tells the
`last_words` of what did not come up. `releases` notes what came up and finds the way back to it. This floor stands on
`environments` and `infra`.

Inside the container `start_agent` becomes `worker`, which starts runs as ECS tasks, one for each of their `attempts`;
`recovery` finds runs that an agent left behind, `task_ends` sees to runs whose task died, of which `causes` knows why.
"""
