"""The report's charts: Vega-Lite specifications from small frames, no data of their own.

- parts: what all share: colours by role, axes of shares
- flow: all sessions, to kept and pruned, to the reasons
- items: popularity before and after
- budget: coverage against the budget
- experts: difficulty, gate and disagreement
- sessions: the map, and one session among its neighbours
- results: performance against the ratio
- run: seconds by stage, sessions by length

Colours are roles such as `@kept`, which the page's script replaces by those of the reader's theme.
"""
