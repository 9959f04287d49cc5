"""What a mix costs in memory: predicted from plans and graphs, measured in a process of its own."""
