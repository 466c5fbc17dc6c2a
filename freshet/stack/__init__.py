"""The local stack: Kafka, Redis and our own processes on one machine, supervised, without Docker, root or system Java."""
