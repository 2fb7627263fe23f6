"""The Python add-on that runs beside and inside an unmodified Flower."""

__version__ = "0.1.0"
