"""The report: tables, figures and cases in one HTML page, and the same as JSON and Markdown."""
