"""Ground floor: what an environment is, how this machine stands, and how we speak to the user.

The story: `settings.load` turns `environments/<env>.tfvars` into a frozen `Environment`. `checks` says what is
missing before anything changes. For environment `local`, `local_stack` starts what AWS and Prefect Cloud are
elsewhere: the emulated AWS and a Prefect server, as background processes on this machine. `console` runs steps
side by side and prints them; `errors` has the one error type; `secrets` is the one place where environment
variables are read. Nothing here imports the other floors.
"""
