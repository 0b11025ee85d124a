"""The lab: docker-compose services, loads, situations, and what must come of them."""
