"""The battle test: who gives memory back when work stops, and what it costs."""
