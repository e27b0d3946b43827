"""Whether the topic is still the one the books speak of.

A topic that is deleted and made anew under a running consumer may grow beyond the old offsets before
anybody notices, and the first records of the new log would be skipped as read. So the broker is asked
every few seconds which incarnation it has. Nobody waits for the answer.
"""

import time
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from django.conf import settings

from sales.topic import ANSWER_SECONDS, client_config

EVERY_SECONDS = 5.0


class TopicWatch:
    """Asks at most every `EVERY_SECONDS`. `trouble` is the last question's, empty when it was answered."""

    def __init__(self) -> None:
        self._topic = settings.FLUXGATE.kafka_topic
        self._admin = AdminClient({**client_config(), "log_level": 0})
        self._due = time.monotonic() + EVERY_SECONDS
        self._answer: Future[Any] | None = None
        self.trouble = ""

    def answer(self) -> str | None:
        """The incarnation that the broker has told since the last call, if it has."""
        now = time.monotonic()
        if self._answer is None:
            if now >= self._due:
                self._due = now + EVERY_SECONDS
                question = TopicCollection([self._topic])
                answers = self._admin.describe_topics(question, request_timeout=ANSWER_SECONDS)
                self._answer = answers[self._topic]
            return None
        if not self._answer.done():
            return None
        answered, self._answer = self._answer, None
        try:
            described = answered.result()
        except KafkaException as error:
            self.trouble = error.args[0].str()
            return None
        self.trouble = ""
        return str(described.topic_id)
