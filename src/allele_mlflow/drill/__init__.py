"""
The fault drills: what the guarantees promise, attacked on the user's own machine and store.

    trial       what one repetition counted, and the verdict over many
    place       a scratch spool beside a real store; the programs that are started in it
    workload    the program that logs until something happens to it
    doomed      a process that ends by SIGKILL at a named step
    programs    programs that fork and interrupt themselves; race_programs: many of them
    readback    what MLflow holds of a run, compared with what the workload's calls returned
    scripts     small programs that say what they logged, compared likewise
    tracking_server  a real `mlflow server`
    kills, servers, leaving, interrupts, crowd, races  the drills
    catalogue   all drills by name
"""
