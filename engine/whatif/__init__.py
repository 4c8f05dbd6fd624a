"""What would have changed: a period of the decision log decided again under edited configurations.

    log → engine.whatif.records   what many records say, at once
        → engine.whatif.period    what each decision saw and what stood in its way, in columns
        → engine.whatif.turns     in what order, where limits differ
        → engine.whatif.walk      whom a scenario itself has contacted, engine.whatif.spending what it has used up
        → engine.whatif.scenario  the slates of each configuration, all with the same model and the same dice
        → engine.whatif.tally     how they differ: by channel, offer and segment, in value, reach and fairness
        → engine.whatif.report    tables and JSON

The model is the one in service now, for the configuration of the log and for the edited ones alike, and the dice are
those of the log. So whatever differs between two scenarios comes from the edit. What it does not know is how people
would have answered: values are what the model expects. For an estimate from answers see engine.evaluate.
"""
