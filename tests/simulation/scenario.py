"""What is offered in a simulation, with windows of seconds, and what callers report."""

CONFIG = b"""
opportune: 1
name: simulation
limit: 2
channels: [{id: web}, {id: branch}]
context:
  - {name: minutes, type: number, input: {range: [0, 60]}}
events:
  - type: purchase
    attributes: {amount: {type: number, required: true}}
    timeline: true
features:
  - {name: spent, event: purchase, function: sum, attribute: amount, resolution: 1}
  - {name: purchases, event: purchase, function: count, input: {kind: log, range: [0, 100]}}
  - {name: purchases_1m, event: purchase, function: count, window: 60s, tile: 10s, input: {range: [0, 10]}}
  - {name: last_amount, event: purchase, function: last, attribute: amount}
offers:
  - {id: card, value: 40, window: 20s, treatments: [{text: a card}]}
  - {id: loan, value: 90, contact_cost: 1, window: 45s, eligibility: ["purchases > 0.0"], treatments: [{text: a loan}]}
  - id: help
    kind: service
    value: 30
    outcomes: {accepted: {window: 8s, reward: 0.25}, fulfilled: {window: 30s}}
    channels: [branch]
    treatments: [{text: help}]
fallback: [card]
learning: {period: 15s, prior_strength: 3}
"""

ACCEPTED_HELP = 25
"""Target of help that was accepted and not delivered."""

JOURNEYS = (
    ("PRESENTED", "ACCEPTED", "FULFILLED"),
    ("PRESENTED", "IGNORED", "ACCEPTED", "CANCELLED"),
    ("PRESENTED", "DECLINED", "ACCEPTED"),
    ("FULFILLED", "ACCEPTED", "FULFILLED", "CANCELLED"),
    ("NOT_PRESENTED", "PRESENTED"),
    ("PRESENTED", "WITHDRAWN", "ACCEPTED"),
    ("ACCEPTED", "DECLINED"),
    ("PRESENTED", "CLICKED", "ACCEPTED"),
    ("DECLINED",),
    ("ACCEPTED",),
    (),
)
"""Stages that are reported of an offer, in this order; some of these moves are not allowed."""
