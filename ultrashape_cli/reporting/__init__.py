"""Self-contained HTML pages: of runs, and the pieces that the pages of datasets share."""
