"""Entry points: functions that take settings and return numbers."""
