"""From a prompt to an image, with numpy and an engine; without torch and diffusers."""
