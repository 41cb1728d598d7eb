"""The user interface in notebooks. Only this package imports IPython and ipywidgets."""
