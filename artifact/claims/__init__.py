"""Whether the claims come out: each claim, its number from results tables, and a verdict.

The YAML files hold the claims, one file a figure, table or section of the paper. Reading order: model (what a claim
is), families (how files hold them), measure (its number), verify (the verdict), text, results_page (docs/RESULTS.md).
"""
