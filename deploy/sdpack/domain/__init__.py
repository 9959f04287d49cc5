"""The basic terms: roles, precisions, placements, estimates."""
