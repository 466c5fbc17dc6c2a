"""What must hold: while a schedule runs (a way out must have a reason), and when it has come to rest."""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from feature_repo.layout import VIEWS, entity_key, pack_bytes, rank_field, state_field
from streams.fold.items import ItemFold
from streams.fold.records import META_KEY, decode_meta
from streams.profiles import header, is_meta_key
from streams.topics import EVENTS, ITEM_DELTAS, ITEM_FEATURES, USER_FEATURES
from tests.sim.worker import Worker, users

if TYPE_CHECKING:
    from tests.sim.world import World

STAGES = ((EVENTS, USER_FEATURES), (ITEM_DELTAS, ITEM_FEATURES))


def way_out(world: "World", worker: Worker, why: str) -> None:
    """A worker may leave when it is fenced or when a fault hit its commit; never as its own state does not add up."""
    if "another worker owns it now" in why or ": expected " in why:
        source = TopicPartition(why.split()[0], int(why.split()[2].rstrip(":")))
        opener = world.broker.ids[f"{worker.stages[source.topic].group}-{source.topic}-{source.partition}"].opener
        if (
            ": expected " in why and opener is worker.process
        ):  # a gap is for those who are fenced and do not know it yet
            world.violated(f"{worker.process.name} met a gap: {why}")
        known = [offset for moment, offset in world.broker.moved[source] if moment < worker.assigned_at]
        owner = worker.stages[source.topic]._owners.get(source.partition)
        if known and owner is not None and owner.committed < known[-1]:
            world.violated(f"{worker.process.name} kept a state that another worker had moved on: {why}")
    elif "the state does not fit together" in why:
        topic, at = why.split(":")[0], worker.assigned_at
        later = [i for name, i in world.broker.ids.items() if f"-{topic}-" in name and i.opened > at]
        if all(i.opener is worker.process for i in later):  # nobody overtook it in its restore
            world.violated(f"{worker.process.name} read a damaged state: {why}")
    elif worker.process not in world.broker.hit or "the commit after offset" not in why:
        world.violated(f"{worker.process.name} left without a fault: {why}")


def at_rest(world: "World") -> bool:
    broker, topics = world.broker, (EVENTS, ITEM_DELTAS)
    for topic in topics:
        for p in range(2):
            tp = TopicPartition(topic, p)
            visible = broker.visible(tp)
            if broker.stable(tp) < len(broker.logs[tp]) or (
                visible and broker.committed.get(tp, 0) <= visible[-1].offset
            ):
                return False
    for topic in (USER_FEATURES, ITEM_FEATURES):
        progress = world.store.hashes[f"freshet:progress:{topic}"]
        for p in range(2):
            tp = TopicPartition(topic, p)
            visible = broker.visible(tp)
            if broker.stable(tp) < len(broker.logs[tp]):
                return False
            if visible and int(progress.get(str(p), 0)) <= visible[-1].offset:
                return False
    return not world.store.down


def final(world: "World") -> None:
    for source, log in STAGES:
        for p in range(2):
            _partition(world, source, log, p)
    _store(world)
    _end_to_end(world)


def _partition(world: "World", source: str, log: str, p: int) -> None:
    """State = fold of what lies below the meta record's offset, byte for byte; versions and writers only go forward."""
    here = f"{log} partition {p}"
    rows: dict[bytes, bytes] = {}
    versions: dict[bytes, int] = {}
    reached = -1
    for record in world.broker.visible(TopicPartition(log, p)):
        assert record.key is not None
        if record.value is None:
            rows.pop(record.key, None)
            continue
        rows[record.key] = record.value
        if record.key == META_KEY:
            came = decode_meta(record.value).next_offset
            if came <= reached:
                world.violated(f"{here}: the meta record went from {reached} to {came}")
            reached = came
        elif not is_meta_key(record.key):
            head = header(record.value)
            assert head is not None
            if head.version <= versions.get(record.key, -1):
                world.violated(f"{here}: the version of {record.key!r} went back to {head.version}")
            versions[record.key] = head.version
    writers = [transaction.order for _, transaction in world.broker.chain[TopicPartition(source, p)]]
    if writers != sorted(writers):
        world.violated(f"{here}: an earlier owner wrote after a later one")
    records = [(r.offset, r.key, r.value) for r in world.broker.visible(TopicPartition(source, p))]
    from tests.sim.world import settings

    fresh = users(settings(), p) if source == EVENTS else ItemFold(p)
    fresh.begin(0)
    fresh.fold(records)
    meta = fresh.meta
    if records and META_KEY not in rows:
        world.violated(f"{here}: nothing was ever committed")
    elif records:
        held = decode_meta(rows[META_KEY])
        if (held.applied, held.late, held.duplicate, held.rejected, held.fingerprint, held.next_offset) != (
            meta.applied, meta.late, meta.duplicate, meta.rejected, meta.fingerprint, meta.next_offset,
        ):  # fmt: skip
            world.violated(f"{here}: {held} is not the fold, {meta}")
        if source == EVENTS and held.applied + held.late + held.duplicate + held.rejected != held.next_offset:
            world.violated(f"{here}: records are not conserved: {held}")
    wanted = dict(fresh.snapshot().rows)
    found = {key: row for key, row in rows.items() if not is_meta_key(key)}
    if found != wanted:
        world.violated(f"{here}: the states of {sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))}")


def _store(world: "World") -> None:
    """The store holds each key's newest row."""
    for log, name, key_name in ((USER_FEATURES, "user", "user_id"), (ITEM_FEATURES, "item", "item_id")):
        for p in range(2):
            visible = world.broker.visible(TopicPartition(log, p))
            newest = {r.key: r.value for r in visible if r.key and not is_meta_key(r.key)}
            for key, row in newest.items():
                held = world.store.hashes[entity_key(key_name, key.decode())]
                assert row is not None
                if held.get(state_field(name)) != pack_bytes(row) or rank_field(VIEWS[name]) not in held:
                    world.violated(f"the store's row of {key!r} is not the newest of {log}")


def _end_to_end(world: "World") -> None:
    """Counted from what was sent, without the engine: each event once in its user's and once in its item's state."""
    from tests.sim.world import item, user

    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for event in world.sent:
        wanted["user"][event.user_id] += 1
        wanted["item"][event.item_id] += 1
    for log, profile in ((USER_FEATURES, user), (ITEM_FEATURES, item)):
        for key, count in wanted[profile.name].items():
            rows = [
                r.value for p in range(2) for r in world.broker.visible(TopicPartition(log, p)) if r.key == key.encode()
            ]
            found = profile.values(rows[-1] if rows else None, 1 << 61)["events_ever"]
            if found != count:
                world.violated(f"{profile.name} {key} counts {found} events, {count} were sent")
