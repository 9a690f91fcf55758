"""What people look at: terminal tables, trees, progress."""
