"""The data of a job: opened by rules, read as tables or arrays, checked against the model, split into rows."""
