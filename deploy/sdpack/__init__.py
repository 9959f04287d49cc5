"""sdpack: measured text-to-image pipelines for devices with a fixed amount of memory."""
