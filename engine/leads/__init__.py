"""Leads: the best use of a sales network's hours, and how far each of them has come.

    assign      which customers get one of the places there are: the most expected worth, exactly. Pure
    places      files of sellers and their capacities
    people      files of customers; segment: customers of a segment
    lead        one lead and its moves: open, taken, done; returned ones are open again. Pure
    forgetting  leads of people who are forgotten

The calls that hand leads out are in engine.service_leads, the commands in engine.cli_leads. docs/leads.md tells it for
people.
"""
