"""What people read: HTML pages that need no other file; tables for the terminal."""
