"""Image quality of mixes: judge, metrics, and the race between mixes."""
