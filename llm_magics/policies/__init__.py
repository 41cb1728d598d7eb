"""
What is decided along the road, each question in a file of its own that knows no other.

Who is asked (`routing`), how often (`retrying`), how many at once (`limits`), who is left alone
(`cooldown`); what is said (`templates`, `prompt_files`) and what was said before (`threads`); what
is kept (`recordings`, `cache`); what came of it (`parsing`, `metrics`); what it costs (`tokens`,
`prices`) and may cost (`budget`). `engine` asks them in turn.
"""
