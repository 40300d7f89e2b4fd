"""HTML pages that need no other file: their common style, tables and figures."""
