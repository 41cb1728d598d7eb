"""``%llm pick``: a panel to choose a model. It displays and changes the shared settings."""

from llm_magics.notebook.picker.panel import pick

__all__ = ["pick"]
