"""
What is decided along the road, each question in a file of its own that knows no other.

Who is asked (`routing`), how often (`retrying`), who is left alone (`cooldown`); what is said
(`templates`); what is kept (`recordings`); what came of it (`parsing`, `metrics`, `prices`).
`engine` asks them in turn.
"""
