"""The settings, their sources and files: `llm_magics.config` is shared by magics, accessor and Python."""
