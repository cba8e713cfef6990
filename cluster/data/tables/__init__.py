"""Tables: what their columns are for, how they become numbers, and what is wrong with their cells."""
