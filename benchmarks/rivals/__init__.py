"""Other quantizers, each a script that runs in an environment of its own: RECIPE GRAPH BATCHES OUT.

BATCHES is a folder of .npz files, each one batch of the graph's inputs.
"""
