"""Two or more probe runs on one page: what is compared, the differences, figures, the page."""
