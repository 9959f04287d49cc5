"""What `import sdpack` offers: plain values in, frozen results out. See docs/python.md."""
