"""The Customers service: who this is, what happened, and what was decided, of all channels in one list."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from engine import answers, answers_contact, answers_timeline
from engine.answers_quotes import fill_instances
from engine.errors import ConfigError, Unavailable
from engine.gateway import customer_of, shown, time_of, traces_of
from engine.gateway_timeline import token_of, wanted_of
from engine.instances import quotes_in
from engine.ledger import Ledger, LedgerError
from engine.linking import chosen, identities_of, targets_of
from engine.lookups import Lookups
from engine.parameters import Quote
from engine.record import DecisionRecord, RecordError, decision_id
from engine.store.base import partition_of
from engine.store_errors import store_errors
from engine.timeline import TimelineError
from engine.timeline import merged as merged_timeline
from engine.timeline import unpack as unpack_timeline
from engine.timelineview import of_decisions, of_events, page
from features import RecordError as FeatureRecordError
from opportune.v1 import common_pb2, customers_pb2

if TYPE_CHECKING:
    from engine.service import Service


class CustomerService:
    """Get."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._lookups: Lookups = service.lookups

    async def get(self, request: customers_pb2.GetCustomerRequest) -> customers_pb2.Customer:
        """Customers.Get."""
        catalogue, entities, store = self._service.catalogue, self._service.entities, self._service.store
        customer = customer_of(request.customer_id, request.identities, catalogue)
        now_ms = time_of(request.time_ms, "time_ms", catalogue, self._service.clock())
        with store_errors():
            if not request.customer_id and len(request.identities) > 1:
                given = traces_of(request.identities, catalogue)
                customer = chosen(given, await targets_of(store, given))
            customer, (record, ledger_bytes) = await self._lookups.whose(customer)
            wanted = wanted_of(request, customer)
            rolled = await entities.of_customer(customer)
            linked = await identities_of(store, customer)
            timelines = await store.read_timelines([customer, *linked])
            others = await store.read(linked)
        header = None
        try:
            if record is not None:
                header = catalogue.layout.header(record)
                record = catalogue.layout.merge([record])  # one of an older configuration, as one of this
            ledger = Ledger.unpack(ledger_bytes)
            # What was decided under a linked name is the customer's, too; it stays in the ledger of that name.
            ledgers = [(customer, ledger)]
            ledgers += [(name, Ledger.unpack(data)) for name, (_, data) in zip(linked, others, strict=True) if data]
            timeline = unpack_timeline(merged_timeline(timelines))
        except (FeatureRecordError, LedgerError, TimelineError) as error:
            raise Unavailable(f"the state of customer {shown(customer)} cannot be read: {error}") from error
        partition = partition_of(customer, store.partitions)
        try:
            response = answers.customer(
                catalogue, customer, (record, ledger_bytes), header, ledger, partition, now_ms, rolled
            )
            values = [
                layout.read([found], np.array([now_ms]))
                for layout, found in zip(catalogue.layouts.values(), (record, *rolled), strict=True)
            ]
        except FeatureRecordError as error:
            raise Unavailable(f"what customer {shown(customer)} belongs to cannot be read: {error}") from error
        response.bytes += sum(len(data or b"") for data in timelines)
        answers_timeline.fill_profile(response, [feature.function for feature in catalogue.config.all_features])
        traces = [name.partition("=") for name in linked if "=" in name]
        response.identities.extend(common_pb2.Identity(kind=kind, value=value) for kind, _, value in traces)
        response.segments.extend(catalogue.segments.of(np.concatenate(values, axis=1)))
        events, cases = of_events(timeline, catalogue.on_timeline)
        decisions = []
        for name, of_name in ledgers:
            home = partition_of(name, store.partitions)
            places, quotes = await self._places(home, of_name)
            fill_instances(response, places, quotes)
            decisions += of_decisions(of_name, home, places, catalogue.offer_name, now_ms)
        shown_items, place = page([*events, *decisions], wanted)
        answers_timeline.fill_timeline(response, shown_items)
        response.next_page_token = token_of(request, customer, place)
        answers_timeline.fill_cases(response, cases, events, now_ms)
        response.timeline_floor_ms = timeline.floor_ms or 0
        answers_contact.fill_contacts(response, catalogue, [ledger_bytes, *(data for _, data in others)], now_ms)
        return response

    async def _places(
        self, partition: int, ledger: Ledger
    ) -> tuple[dict[str, tuple[str, str]], dict[str, Mapping[str, Quote]]]:
        """(channel, placement) and quotes of the ledger's decisions, by id, as far as their records are still there."""
        positions = [entry.position for entry in ledger.decisions]
        with store_errors():
            found = await self._service.store.entries([(partition, position) for position in positions])
        places: dict[str, tuple[str, str]] = {}
        quotes: dict[str, Mapping[str, Quote]] = {}
        for position, data in zip(positions, found, strict=True):
            # What cannot be found or read is left out: it is shown without a channel.
            with suppress(RecordError, ConfigError):
                if data is not None:
                    record = DecisionRecord.unpack(data)
                    quotes[decision_id(partition, position)] = quotes_in(record)
                    if channels := await self._lookups.channels_of(record.config_version):
                        channel = channels[record.channel]
                        placement = ("", *channel.placements)[record.placement]
                        places[decision_id(partition, position)] = channel.id, placement
        return places, quotes
