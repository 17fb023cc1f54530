"""Reports: what a run measured and judged, as one HTML file."""
