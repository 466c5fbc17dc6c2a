"""What locust does to the service: one question after another, each of a user of its own choice.

Run by `benchmarks.serving.load`, which says in the environment which shape the load has and who the users are.
"""

import os
import random
from time import time

from gevent import sleep
from locust import FastHttpUser, LoadTestShape, task

USERS = int(os.environ["LOAD_USERS"])
SHAPE, SECONDS, CONNECTIONS = (
    os.environ["LOAD_SHAPE"],
    int(os.environ["LOAD_SECONDS"]),
    int(os.environ["LOAD_CONNECTIONS"]),
)
PER_S = float(os.environ["LOAD_PER_S"])
PAUSE_S = CONNECTIONS / PER_S if PER_S else 0.0
"""From one question of a visitor to the next, in the mean."""


class Visitor(FastHttpUser):
    """One connection. 429 is an answer: the service says that it has enough."""

    def on_start(self) -> None:
        """Visitors come a hundred at once: with a pause between questions, each waits a part of one first."""
        self.due = time() + random.random() * PAUSE_S
        sleep(self.due - time())

    def wait_time(self) -> float:
        """Seconds until the next question. At even intervals visitors fall in step, and ask in heaps."""
        self.due = max(self.due + random.uniform(0.9, 1.1) * PAUSE_S, time())
        return max(0.0, self.due - time())

    @task
    def recommend(self) -> None:
        body = {"user_id": f"u{random.randrange(USERS)}", "k": 20}
        with self.client.post("/recommend", json=body, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.request_meta["name"] = "/recommend (429)"
                answer.success()
            elif answer.status_code == 200 and len(answer.json()["items"]) != 20:
                answer.failure("fewer than 20 items")


class Shape(LoadTestShape):
    """Connections over time: steady and soak hold them, ramp raises them by quarters, spike has four times as many."""

    def tick(self) -> tuple[int, float] | None:
        at = self.get_run_time() / SECONDS
        if at >= 1:
            return None
        if SHAPE == "ramp":
            return max(1, round(CONNECTIONS * (int(at * 4) + 1) / 4)), 100
        if SHAPE == "spike":
            return CONNECTIONS * (4 if 0.4 <= at < 0.6 else 1), 100
        return CONNECTIONS, 100
