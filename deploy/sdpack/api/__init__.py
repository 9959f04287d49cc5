"""The Python API: takes plain values, returns frozen results. See docs/python.md."""
