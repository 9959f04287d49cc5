"""A bundle as an inference server: HTTP in front, one thread that draws behind a bounded queue."""
