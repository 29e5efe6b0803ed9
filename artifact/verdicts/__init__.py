"""Whether the claims come out: each claim of artifact/claims/, its number from results tables, and a verdict.

Reading order: claims (what a claim is), families (how files hold them), measures (its number), verify (the verdict),
words (its text), results_page (docs/RESULTS.md).
"""
