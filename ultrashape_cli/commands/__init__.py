"""One file per verb: parse, configure, call the library, report."""
