"""Leads of people who are forgotten."""

from collections.abc import Collection

from engine.leads.lead import Lead
from engine.store.base import LeadBoard, LeadWrite


async def forget_leads(store: LeadBoard, names: Collection[str]) -> int:
    """Remove the leads of these customers from all lists that are known; returns how many. May be repeated.

    One that a seller changes at the same moment is read again.
    """
    count = 0
    for list_id in await store.lead_lists():
        while True:
            found = [Lead.unpack(data) for data in (await store.all_leads(list_id)).values()]
            theirs = [lead for lead in found if lead.customer in names]
            writes = [LeadWrite(lead.lead_id, lead.pack(), b"", leaves=lead.queue) for lead in theirs]
            removed = sum(await store.write_leads(list_id, writes)) if writes else 0
            count += removed
            if removed == len(theirs):
                break
    return count
