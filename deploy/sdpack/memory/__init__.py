"""Memory use of mixes: predicted from plans and graphs, and measured in a separate process."""
