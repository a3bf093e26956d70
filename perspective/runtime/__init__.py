"""What the pipeline runs on: devices, memory, several processes, Ray."""
