"""Prompts: templates, prompt files, conversations, and the messages made of them."""
