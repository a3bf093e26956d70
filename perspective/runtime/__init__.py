"""Where the pipeline runs: devices, memory, several processes, Ray."""
