"""The data set, the prompt lists, and the packages they come from."""
