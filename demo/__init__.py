"""The main job, shown from start to end: `make demo`, `make demo-net`."""
