"""Wake-ups over Redis or Valkey: for many workers and hosts, beside a database that has better things to do."""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

CHANNEL = "nimbus:log"


class RedisBus:
    """One connection listens, and up to `pool_size` tell."""

    def __init__(self, url: str, pool_size: int) -> None:
        # To a Unix socket there is no keepalive, and redis-py takes it amiss.
        of_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
        self._redis: Redis = Redis.from_url(
            url, max_connections=pool_size + 1, socket_connect_timeout=2, health_check_interval=15, **of_tcp
        )

    async def publish(self, project_ids: Collection[UUID]) -> None:
        """Tell of them. Raises ConnectionError."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for project_id in project_ids:
                    pipeline.publish(CHANNEL, project_id.hex)
                await pipeline.execute()
        except RedisError as error:
            raise ConnectionError(str(error)) from error

    async def listen(self) -> AsyncGenerator[UUID | None, None]:
        """What is told, for as long as the connection lasts; None at first, when it listens.

        Raises ConnectionError.
        """
        try:
            async with self._redis.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                async with aclosing(pubsub.listen()) as messages:
                    async for message in messages:
                        if message["type"] == "subscribe":
                            yield None
                        elif message["type"] == "message":
                            with suppress(ValueError):  # others may use the channel too
                                yield UUID(message["data"].decode())
        except RedisError as error:
            raise ConnectionError(str(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
