"""The local stack: Kafka, Redis and our own processes on one machine, supervised.

No Docker, no root, no system Java.
"""
