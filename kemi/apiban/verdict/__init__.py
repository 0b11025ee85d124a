"""Why a source is dropped or not, and what an operator may decide about it."""
