"""The migrations, in order: each is one step that is never changed after a release."""
