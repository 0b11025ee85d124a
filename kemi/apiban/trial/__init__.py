"""What a trial against a real Kamailio needs: to start it, and to load it."""
