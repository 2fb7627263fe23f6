"""Pages and handlers that are installed in Flower."""
