"""What a trial showed, as a table and as a verdict."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts of one trial: packets are SIPp's, drops are the workers' own."""

    listed_sent: int
    listed_dropped: int
    listed_answered: int
    control_probes: int
    control_answered: int
    calls_tried: int
    calls_succeeded: int
    options_tried: int
    options_succeeded: int
    cpu_seconds: float  # of the SIP workers, while only the flood ran
    cpu_drops: int  # the drops of that time
    front_dropped: int  # by native code, for sources that were dropped lately
    workers: tuple[tuple[int, int], ...]  # rank and drops by Python of each SIP worker

    def table(self) -> str:
        """Give the table, ready to print."""
        cost = f"{self.cpu_seconds / self.cpu_drops * 1e6:.1f}" if self.cpu_drops else "-"
        rows = (
            ("packets sent by listed sources", str(self.listed_sent)),
            ("  dropped before parsing", str(self.listed_dropped)),
            ("  answered", str(self.listed_answered)),
            ("control probes from an unlisted source", str(self.control_probes)),
            ("  answered", str(self.control_answered)),
            ("good calls tried", str(self.calls_tried)),
            ("  succeeded", str(self.calls_succeeded)),
            ("good OPTIONS tried", str(self.options_tried)),
            ("  succeeded", str(self.options_succeeded)),
            ("CPU microseconds a drop (SIP workers, -x tlsf)", cost),
            ("drops by the front, without Python", str(self.front_dropped)),
            ("drops by Python in each worker (rank:drops)", self._workers()),
        )
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name:<{width}}  {value:>8}" for name, value in rows)

    def _workers(self) -> str:
        return " ".join(f"{rank}:{drops}" for rank, drops in self.workers)

    def failures(self) -> tuple[str, ...]:
        """Say what did not go as it must; empty when all did."""
        checks = (
            (self.listed_sent == 0, "no flood took place"),
            (self.listed_answered > 0, f"{self.listed_answered} banned packets were answered"),
            (
                self.listed_sent != self.listed_dropped,
                f"{self.listed_sent} packets of listed sources, {self.listed_dropped} dropped",
            ),
            (self.control_answered == 0, "the control source got no answer"),
            (
                self.calls_succeeded != self.calls_tried or not self.calls_tried,
                f"{self.calls_succeeded} of {self.calls_tried} good calls succeeded",
            ),
            (
                self.options_succeeded != self.options_tried or not self.options_tried,
                f"{self.options_succeeded} of {self.options_tried} good OPTIONS succeeded",
            ),
        )
        return tuple(text for failed, text in checks if failed)
