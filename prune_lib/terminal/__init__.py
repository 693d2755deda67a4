"""What a job shows: its log lines and its progress on stderr, its summary or its JSON on stdout.

`streams` finds the user's own stderr behind spark-submit, `logs` puts our log lines there, `live` redraws a
line of progress below them on a terminal, `output` prints the result, `failures` says what went wrong; `cell`
is a notebook's line of progress.
"""
