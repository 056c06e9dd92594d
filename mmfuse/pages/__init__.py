"""Pages for people: one HTML file that needs nothing else, with its style and what tables and charts are made of."""
