"""What is found out about models and finished folders: comparisons, verification, reports."""
