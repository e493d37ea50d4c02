"""What a person sees: terminal tables, progress, plots, the HTML report."""
