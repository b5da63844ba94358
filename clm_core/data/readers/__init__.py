"""Files to rows and texts: a module for each kind of file."""
