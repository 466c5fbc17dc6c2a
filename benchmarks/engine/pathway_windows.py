"""The job of `benchmarks.engine.peers` on Pathway, which starts it in an environment that has Pathway.

`pathway_windows.py BOOTSTRAP GROUP SOURCE OUT`. What has changed is written every 300 ms, as a retraction of the old
figures of a window (`diff` -1) and its new ones (1). There is no transaction into Kafka.
"""

import sys

import pathway as pw


class Event(pw.Schema):
    user_id: str
    type: str
    value: float
    event_time: int


def main(bootstrap: str, group: str, source: str, out: str) -> None:
    reader = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    events = pw.io.kafka.read(reader, topic=source, format="json", schema=Event, autocommit_duration_ms=300)
    keyed = events.select(pw.this.value, pw.this.event_time, cell=pw.make_tuple(pw.this.user_id, pw.this.type))
    for seconds in (300, 3_600):
        window = pw.temporal.tumbling(duration=seconds * 1_000_000)
        counted = keyed.windowby(keyed.event_time, window=window, instance=keyed.cell).reduce(
            cell=pw.this._pw_instance,
            start=pw.this._pw_window_start,
            n=pw.reducers.count(),
            total=pw.reducers.sum(pw.this.value),
        )
        rows = counted.select(
            pw.this.start, pw.this.n, pw.this.total, user=pw.this.cell[0], type=pw.this.cell[1], length=seconds
        )
        pw.io.kafka.write(rows, {"bootstrap.servers": bootstrap}, topic_name=out, format="json", key=rows.user)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main(*sys.argv[1:])
