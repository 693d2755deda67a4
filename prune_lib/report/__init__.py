"""The report of a run: one HTML page, made of the tables that the run wrote.

- facts: what is shown, as plain data
- tables: a run summed up from its tables (Spark)
- sample: some sessions with their clicks (Spark)
- neighbours: the picture of one session (Spark)
- results: the curves of an evaluation, where there is one (Spark)
- datamap: a picture of sessions from the experts' states (torch, UMAP)
- charts: Vega-Lite specifications (Altair)
- sections: the words and numbers
- page: the HTML (Jinja)
- job: from the tables to the file
"""
