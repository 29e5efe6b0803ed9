"""From tables to pictures and pages: figures drawn, the report, and figures in notebooks."""
