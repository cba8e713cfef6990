"""The formats of data files, one a file: each reads an open file into `Arrays` or a `Table`."""
