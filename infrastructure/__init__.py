"""Where and how the platform runs: the embedded stack for one machine, images and cloud deployments."""
