"""``%llm pick``: a panel for choosing a model, which is a view on the shared settings."""

from llm_magics.notebook.picker.panel import pick

__all__ = ["pick"]
