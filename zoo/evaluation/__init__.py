"""Drawing images with the zoo, and measuring its quality."""
