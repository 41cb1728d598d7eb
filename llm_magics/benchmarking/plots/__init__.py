"""Measurements as pictures: matplotlib's, static, readable in grey, on light and on dark."""
