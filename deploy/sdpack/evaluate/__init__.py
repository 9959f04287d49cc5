"""What a mix's pictures are worth: judge, metrics, and the race between mixes."""
