"""The user interface in notebooks. Only this package imports IPython, ipywidgets and anywidget."""
