"""
The fault drills: what the guarantees promise, attacked on the user's own machine and store.

    trial       what one repetition counted, and the verdict over many
    place       a scratch spool beside a real store; the programs that are started in it
    workload    the program that logs until something happens to it
    doomed      a process that ends by SIGKILL at a named step
    programs    programs that fork, interrupt themselves and leave while they log
    race_programs  many of them at once
    readback    what MLflow holds of a run, compared with what the workload's calls returned
    scripts     small programs that say what they logged, compared likewise
    tracking_server  a real `mlflow server`
    accounts    the account of a run that had to drop records
    small_disk  a file system that fills up, mounted for a trial or faked (faked_disk)
    disk_trials what is tried on one, each in a process of its own; disks joins them with the rest
    backlog     a large backlog, and a sync of it
    kills, leaving, interrupts, crowd, races, servers, disks  the drills
    catalogue   all drills by name
"""
