"""Reports: one HTML file that needs nothing else, for a slide or for a cohort."""
