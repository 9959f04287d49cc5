"""An inference server for a bundle: HTTP, a bounded queue, and one thread that draws."""
