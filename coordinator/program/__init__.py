"""Programs, checked and performed without arrays: laws, dry run, drawing."""
