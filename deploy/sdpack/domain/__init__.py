"""The terms everything else is written in: roles, precisions, placements, estimates."""
