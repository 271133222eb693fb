"""From raw files to a data folder: steps over spans of lines, a journal of what is done, and the run that ties them."""
