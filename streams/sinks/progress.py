"""How far the online store has come, kept in the store itself.

Redis writes its append-only file in order, so progress that survived a crash implies that the rows before it survived.
Whoever finds less progress than they left knows that Redis lost its tail (or was flushed), and goes back.
"""

from redis import Redis

ADVANCE = """
-- KEYS: the progress of a topic. ARGV: partition, expected offset ('' for none), new offset; again and again.
for at = 1, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = 1, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
return 1
"""


class Progress:
    """Of one topic: the next offset of each partition; rows below it are in the store."""

    def __init__(self, client: "Redis", topic: str) -> None:
        self._client, self.key = client, f"freshet:progress:{topic}"
        self._advance = client.register_script(ADVANCE)

    def read(self) -> dict[int, int]:
        """Partition -> next offset; a partition without progress is left out."""
        found = self._client.hgetall(self.key)
        return {int(partition): int(offset) for partition, offset in found.items()}  # type: ignore[union-attr]

    def advance(self, known: dict[int, int], to: dict[int, int]) -> bool:
        """Set the offsets of `to`. False, and nothing is set, when Redis does not hold what is `known` of them."""
        arguments = [text for partition, offset in to.items() for text in (partition, known.get(partition, ""), offset)]
        return bool(self._advance(keys=[self.key], args=arguments))
