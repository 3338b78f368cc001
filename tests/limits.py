"""How long tests wait for what must come."""

from __future__ import annotations

# Seconds until a process or thread counts as hung.  It ends a test that would wait for ever, and
# says nothing about speed: on a busy machine even the import of torch took two minutes.
HUNG = 1800
