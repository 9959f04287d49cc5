"""From a prompt to a picture, with numpy and an engine; neither torch nor diffusers."""
