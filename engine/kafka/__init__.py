"""Kafka as the event log, and Faust workers that fold it.

    serve ──► <prefix>.events ──► worker (Faust) ──► fold ──► store            key: customer
                    ▲                    │
    --source ──► repartition             └──► <prefix>.dead                    what is no event, with the reason
    serve ──► <prefix>.decisions, <prefix>.outcomes                            for others to read

topics.py    names, partitions, and whether the topics are those the store was filled from
producer.py  what goes into Kafka: acknowledged by all in-sync replicas before anybody is told
metadata.py  ids of topics, which the client library cannot ask for
reader.py    partitions as they are, beside the consumer group
sequence.py  records of a partition in order and without a gap, whatever the consumer skips or repeats
folding.py   records into the store, by compare-and-set; the pure fold does the work
repartition.py  events of foreign producers: checked as over HTTP, keyed by customer
worker.py    the Faust app around these

Exactly once in effect, by watermark: a customer's events are in one partition, each record of state keeps the offset of
the last event folded, and is replaced only if nobody else replaced it meanwhile. Offsets are committed after the write.
So a batch that is delivered again, to whomever, changes nothing. What a watermark cannot repair is an event that was
skipped: sequence.py sees to that, because consumers of a group have been seen to skip when partitions move.

Not here: learning. Decisions and outcomes are committed to the store first, where the learner reads them.
"""
