"""The models of the zoo and how they are trained."""
