"""Public datasets: a download to rows and a manifest."""
