"""Many slides: a plan on a shared disk that any number of processes work off, each slide by one of them.

results/
    cohort.json             the plan: slides, settings, estimated costs; written once
    a.geojson ...           the results, each complete when it is there
    .cohort/000000.lease    who is working on slide 0, and when it last said so
    .cohort/000000.json     how slide 0 ended: done or failed
    .cohort/000000/         what an unfinished run of slide 0 has finished, gone once it is done
"""
