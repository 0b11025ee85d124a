"""What the tests share: a clock to turn by hand, feeds that misbehave, SIP packets, nodes."""
