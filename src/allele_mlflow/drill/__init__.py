"""
The fault drills: what the guarantees promise, attacked on the user's own machine and store.

    trial       what one repetition counted, and the verdict over many
    place       a scratch spool beside a real store; the programs that are started in it
    workload    the program that logs until something happens to it
    doomed      a process that ends by SIGKILL at a named step
    readback    what MLflow holds of a run, compared with what the workload's calls returned
    scripts     small programs that say what they logged, compared likewise
    kills       SIGKILL and SIGSTOP
    leaving     forks, pools, odd exits, loops
    crowd       many at once on one spool, clocks that go back
    catalogue   all drills by name
"""
