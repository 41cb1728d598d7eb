"""The batch APIs of services: one module per format."""
