"""Prompts: templates, prompt files, conversations, and the messages built from them."""
