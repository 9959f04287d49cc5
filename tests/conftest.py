from hypothesis import settings

# Shared machines are slow at times: an example may take long without anything being wrong.
settings.register_profile("sdpack", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("sdpack")
