"""A Faust agent of one's own on the results: ``faust -A headwater_custom.agent worker``."""

import os

import faust
import pyarrow as pa

app = faust.App("hot-windows", broker=os.environ["KAFKA_URL"], web_enabled=False)
results = app.topic("aggregates", value_type=bytes, value_serializer="raw")


@app.agent(results)
async def on_results(stream):
    """Tell which windows were hot; a record without a value only says that time went on."""
    async for value in stream:
        for row in pa.ipc.open_stream(value).read_all().to_pylist() if value else ():
            if row["mean"] > 90:
                print(f"{row['device']} {row['metric']} {row['start_ms']} is hot: {row['mean']}")
