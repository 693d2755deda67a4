"""The report of a run: one HTML page, made of the tables that the run wrote.

facts      what the tables say, in arrays of bounded size        (Spark)
sample     some sessions with their clicks                       (Spark)
neighbours the picture of one session                            (Spark)
datamap    a picture of sessions from the experts' states        (torch, UMAP)
results    the curves of an evaluation, where there is one       (Spark)
charts     Vega-Lite specifications                              (Altair)
page       the sections, in words and numbers                    (Jinja)
job        from the tables to the file
"""
