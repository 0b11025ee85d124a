"""The doctor: small checks that say what is wrong on this host, and how to mend it."""
