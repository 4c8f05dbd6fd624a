"""Other learners beside ours, in an environment of their own: none of them is a dependency of the project.

- `bench.peers.environment`: that environment, made on first use.
- `bench.peers.grid`: which learners, with which settings.
- `bench.peers.worker`: the process in the environment that runs them on prepared rows.
- `bench.peers.results`: what they did, run once and kept.
"""
