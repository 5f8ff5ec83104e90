"""One text in, one vector out: the part of minisbert that is meant to be read."""
