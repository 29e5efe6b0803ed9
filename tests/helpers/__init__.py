"""What several tests share: fake servers, engines stepped by hand, workloads, made-up tables, plain formulas."""
