"""The gate for CI: compare evaluation sets with a baseline, and fail only on evidence of a drop."""
