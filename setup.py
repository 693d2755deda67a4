"""The package `prune-lib`: what a machine needs depends on what it does, hence the extras."""

from setuptools import find_packages, setup

# numba compiles the exact sampler's loop; scikit-learn's trees, which learn on the driver, foresee demand.
# Both are run by Spark's Python workers: executors need them as the driver does. Trees of a former
# scikit-learn hang in their last bits on the number of threads.
SPARK = [
    "pyspark==3.5.*",
    "delta-spark==3.3.*",
    "graphframes-py>=0.12,<0.13",
    "numba>=0.60",
    "scikit-learn>=1.7",
]
# Petastorm calls parts of pyarrow that version 15 removed, numpy 1's names, and pkg_resources.
EXPERTS = ["torch", "safetensors", "petastorm==0.13.*", "pyarrow<15", "numpy<2", "setuptools<70"]
TRACKING = ["mlflow>=3,<4"]
# scipy 1.15 names the bootstrap's generator `rng`; tabulate writes the document's Markdown tables.
EVALUATION = ["ir-measures>=0.4", "scipy>=1.15", "matplotlib", "tabulate"]
# The page: charts with all that draws them, its template, the map of sessions.
REPORT = ["altair>=5.5", "vl-convert-python", "jinja2", "umap-learn"]
DEV = [
    "databricks-bundles",
    "deltalake",
    "duckdb",
    "hypothesis",
    "ipykernel",
    "mypy",
    "nbclient",
    "pandas-stubs",
    "playwright",
    "pre-commit",
    "pytest",
    "pytest-xdist",
    "ruff",
    "scipy",
    "types-PyYAML",
    "types-tabulate",
]

setup(
    name="prune-lib",
    version="0.1.0",
    description="Prunes session data for recommenders",
    packages=find_packages(include=["prune_lib", "prune_lib.*"]),
    package_data={
        "prune_lib": ["py.typed"],
        "prune_lib.ingest": ["forms/*.yaml"],
        "prune_lib.report": ["page.html.j2", "page.css", "page.js"],
    },
    python_requires=">=3.10,<3.13",
    # What importing the library needs; Spark is the cluster's own where there is a cluster.
    install_requires=["numpy", "pandas>=2.2,<3", "pyarrow", "pydantic>=2,<3", "pyyaml", "rich"],
    extras_require={
        "spark": SPARK,
        "experts": EXPERTS,
        "tracking": TRACKING,
        "evaluation": EVALUATION,
        "report": REPORT,
        "dev": DEV,
        "all": [*SPARK, *EXPERTS, *TRACKING, *EVALUATION, *REPORT, *DEV],
    },
    entry_points={
        "console_scripts": [
            "ingest-clicks = prune_lib.cli:ingest_main",
            "prune = prune_lib.cli:prune_main",
            "evaluate-pruning = prune_lib.cli:evaluate_main",
            "explain-pruning = prune_lib.cli:explain_main",
            "report-pruning = prune_lib.cli:report_main",
            "train-experts = prune_lib.cli:train_main",
        ]
    },
)
