"""What asyncpar costs, measured against its targets and its peers: `python -m tests.benchmarks` from the project's root.

It prints one Markdown table, and draws one plot if called with `--plot FILE`. `--case NAME` picks the cases whose names begin
so, `--rounds N` says how often each is measured, `--quick` measures a tenth. pytest does not collect this folder.

    cases/          what is measured: a file for each subject; `cases/__init__.py` lists them all
    workloads.py    the functions that are mapped; importable, as every peer's workers need them
    ordinary.py     records, texts, arrays: data as programs have it
    peers.py        the other libraries' maps, behind one face
    whole_maps.py   the time of a map as a list or as a stream, asyncpar's or a peer's
    own_class.py    the same as a script with a class of its own
    timing.py       medians of repetitions, event loops
    frame.py        what a case, a contender and a target are
    rounds.py       runs each contender in a process of its own, round by round
    measure.py      that process
    report.py       medians, ratios, and which targets are met
    table.py        all that as the table
    plot.py         all that as the plot
    machine.py      what it was measured on
"""
