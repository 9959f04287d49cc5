"""Caches of builds: artifacts and measurements, each keyed by the hash of its inputs."""
