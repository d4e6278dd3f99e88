"""What limited a step: one rule, written down, so that nobody has to believe an opinion. Pure.

In this order; the first that holds is the answer:

1. *rate*: in an open run at least 95 % of what was due was answered. Nothing was at its limit.
2. *a component*: its busiest process used at least 85 % of one core. Gateway, broadcaster, archiver and Redis decide on
   one thread each, so they cannot go faster; of several, the busiest counts.
3. *generator*: the same of the busiest process of the load. The platform could have done more.
4. *machine*: all cores together were at least 90 % busy, nobody alone: the load and the platform share them.
5. *waiting*: none of these. Users waited for answers that took their time (the network, the disk), or they paused.

Where the generator is at its limit too (2 and 3 hold at once), or used more than a quarter of what was used (4), the
reason says so: the figure is then a lower bound for the platform. Where other programs of the machine used more than
0.2 cores, it says that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from load_tests.experiments.common.results import Limit, Use
from load_tests.experiments.common.sampling import Measured

CORE_FULL: Final = 0.85
MACHINE_FULL: Final = 0.90
RATE_KEPT: Final = 0.95
SHARE_HIGH: Final = 0.25
OTHERS_HIGH: Final = 0.2

# They use many threads or processes: one of them at a core says nothing, and the machine's rule finds them.
_PARALLEL: Final = ("nats", "postgres")


def limit_of(found: Measured, *, offered_per_s: float = 0.0, reached_per_s: float = 0.0, quota: float = 0.0) -> Limit:
    """Apply the rule.

    Args:
        found: what was sampled under full load.
        offered_per_s: actions due per second in an open run, 0 in a closed one.
        reached_per_s: actions per second that were answered.
        quota: cores that each component may use at most, where it has a quota; 0 for no quota.
    """
    limit = _limit_of(found, offered_per_s, reached_per_s, quota)
    if found.others > OTHERS_HIGH and limit.what != "rate":
        return Limit(limit.what, f"{limit.why}; other programs used {found.others:.1f} cores beside it")
    return limit


def _limit_of(found: Measured, offered_per_s: float, reached_per_s: float, quota: float) -> Limit:
    components, generator = found.components, found.generator
    full = CORE_FULL * (quota or 1.0)
    if offered_per_s and reached_per_s >= RATE_KEPT * offered_per_s:
        return Limit("rate", f"{reached_per_s:,.0f} of {offered_per_s:,.0f} actions/s that were due were answered")
    single = {name: use for name, use in components.items() if name not in _PARALLEL or quota}
    busiest = max(single, key=lambda name: single[name].hottest, default=None)
    generator_full = generator is not None and generator.hottest >= CORE_FULL
    if busiest is not None and single[busiest].hottest >= full:
        also = "; the generator is at its limit too, so this is a lower bound" if generator_full else ""
        return Limit(busiest, f"its busiest process used {single[busiest].hottest:.0%} of a core{also}")
    if generator is not None and generator_full:
        return Limit(
            "generator",
            f"its busiest process used {generator.hottest:.0%} of a core, the platform's {_of(single, busiest)}: "
            "a lower bound for the platform",
        )
    if found.busy >= MACHINE_FULL:
        also = ": a lower bound for the platform" if found.share > SHARE_HIGH else ""
        return Limit("machine", f"all cores were {found.busy:.0%} busy, {found.share:.0%} of it the load{also}")
    if not components and generator is None:
        return Limit("unknown", "nothing of this platform can be sampled from here")
    return Limit("waiting", f"nothing was at its limit: cores {found.busy:.0%} busy, {_of(single, busiest)} at most")


def _of(components: Mapping[str, Use], name: str | None) -> str:
    return "unknown" if name is None else f"{name} {components[name].hottest:.0%} of a core"
