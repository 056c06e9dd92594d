"""Files of any place, local or in a store: found, permitted, read and put."""
