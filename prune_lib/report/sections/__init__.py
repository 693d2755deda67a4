"""The report's sections, in the order of a reader's questions; the words are here, the charts in `charts`."""
