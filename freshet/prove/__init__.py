"""`freshet prove`: real brokers, workers and sinks, killed under load, and every store judged by an oracle afterwards.

A `Scenario` is a list of `Fault`s and the settings that they need. The `Rig` is the line that they hit, fed by a
seeded `Workload`. `Progress` sees that work was in progress at each fault and went on after it; the `History` holds
every operation with its time. When all is quiet the `Checker` asks the `Oracle` (`monitoring.oracle`, which shares no
code with the line) and gives the `Verdict`. The negative controls (`controls`) are lines with one promise broken:
a proof that passes one of them proves nothing.
"""
