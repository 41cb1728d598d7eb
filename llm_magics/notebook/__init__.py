"""What a person sees and touches. The only rooms that know IPython and ipywidgets."""
