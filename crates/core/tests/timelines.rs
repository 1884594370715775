//! Stories of runs: a plan and a script of inputs in, everything that happens out.

mod timeline;

use insta::assert_snapshot;
use timeline::timeline;

/// The plainest run there is.
#[test]
fn a_chain_runs_in_order() {
    assert_snapshot!(timeline(
        "fetch
        store <- fetch",
        "
        0s start
        2s fetch ends
        3s store ends
        "
    ), @"
    0s    run started
    0s    fetch#1 starts
    2s    fetch#1 succeeded
    2s    store#1 starts
    3s    store#1 succeeded
    3s    run succeeded
    ");
}

/// Two at once: `b` is ready later than `a`, but stands before it in the plan.
#[test]
fn the_plan_order_and_the_limit_decide_who_starts() {
    assert_snapshot!(timeline(
        "plan concurrency=2
        d
        c
        b <- c
        a",
        "
        0s start
        1s c ends
        1s why a
        2s d ends
        3s b ends
        4s a ends
        "
    ), @"
    0s    run started
    0s    d#1 starts
    0s    c#1 starts
    1s    c#1 succeeded
    1s    b#1 starts
    1s    why a? 2 at once: d b
    2s    d#1 succeeded
    2s    a#1 starts
    3s    b#1 succeeded
    4s    a#1 succeeded
    4s    run succeeded
    ");
}

#[test]
fn a_step_waits_for_all_its_dependencies() {
    assert_snapshot!(timeline(
        "left
        right
        join <- left right",
        "
        0s start
        1s right ends
        1s why join
        2s left ends
        3s join ends
        "
    ), @"
    0s    run started
    0s    left#1 starts
    0s    right#1 starts
    1s    right#1 succeeded
    1s    why join? needs left (running) and 0 others → attempt 1 runs since 0s
    2s    left#1 succeeded
    2s    join#1 starts
    3s    join#1 succeeded
    3s    run succeeded
    ");
}

/// `late` ends within the grace, so its success counts; `slow` is told to end at 6 s and killed at 9 s.
#[test]
fn an_abort_cancels_what_waits_and_gives_what_runs_its_grace() {
    assert_snapshot!(timeline(
        "quick grace=5
        slow stop_grace=3
        late
        after <- late",
        "
        0s start
        1s quick exits 1
        1s why slow
        4s late ends
        9s slow dies SIGKILL
        "
    ), @"
    0s    run started
    0s    quick#1 starts
    0s    slow#1 starts
    0s    late#1 starts
    1s    quick#1 failed for good: exit code 1
    1s    run stops: step `quick` failed and its policy is `abort`; what runs may go on until 6s
    1s    after canceled
    1s    why slow? attempt 1 runs since 0s
    4s    late#1 succeeded
    6s    slow#1 told to end by 9s: the run stops
    9s    slow#1 killed: the run stops
    9s    slow#1 canceled: ended by SIGKILL (signal 9)
    9s    run failed
    ");
}

/// What ends after it was told to is canceled, whatever its exit code.
#[test]
fn an_abort_without_grace_ends_what_runs_at_once() {
    assert_snapshot!(timeline(
        "quick
        slow",
        "
        0s start
        1s quick exits 3
        2s slow exits 0
        "
    ), @"
    0s    run started
    0s    quick#1 starts
    0s    slow#1 starts
    1s    quick#1 failed for good: exit code 3
    1s    run stops: step `quick` failed and its policy is `abort`; everything is told to end
    1s    slow#1 told to end by 11s: the run stops
    2s    slow#1 canceled: exit code 0
    2s    run failed
    ");
}

/// `other` fails in the grace: for good, retries or not; the retry of `third` is off.
#[test]
fn during_an_abort_nothing_is_tried_again() {
    assert_snapshot!(timeline(
        "quick grace=10
        other retries=5
        third retries=5 delay=60",
        "
        0s start
        0.5s third exits 1
        1s quick exits 1
        2s other exits 1
        "
    ), @"
    0s    run started
    0s    quick#1 starts
    0s    other#1 starts
    0s    third#1 starts
    0.5s  third#1 failed: exit code 1
    0.5s  third#2 due at 60.5s
    1s    quick#1 failed for good: exit code 1
    1s    run stops: step `quick` failed and its policy is `abort`; what runs may go on until 11s
    1s    third canceled
    2s    other#1 failed for good: exit code 1
    2s    run failed
    ");
}

#[test]
fn a_second_failure_during_an_abort_changes_nothing() {
    assert_snapshot!(timeline(
        "quick grace=10
        other grace=99
        third",
        "
        0s start
        1s quick exits 1
        2s other exits 1
        11s third dies SIGTERM
        "
    ), @"
    0s    run started
    0s    quick#1 starts
    0s    other#1 starts
    0s    third#1 starts
    1s    quick#1 failed for good: exit code 1
    1s    run stops: step `quick` failed and its policy is `abort`; what runs may go on until 11s
    2s    other#1 failed for good: exit code 1
    11s   third#1 told to end by 21s: the run stops
    11s   third#1 canceled: ended by SIGTERM (signal 15)
    11s   run failed
    ");
}

#[test]
fn an_abort_of_a_step_that_is_not_critical_skips_dependents() {
    assert_snapshot!(timeline(
        "lint critical=false
        report <- lint
        build",
        "
        0s start
        1s lint exits 1
        2s build ends
        "
    ), @"
    0s    run started
    0s    lint#1 starts
    0s    build#1 starts
    1s    lint#1 failed for good: exit code 1
    1s    report skipped because of lint
    2s    build#1 succeeded
    2s    run succeeded
    ");
}

/// The rest goes on; the run has failed because `fetch` is critical.
#[test]
fn skip_dependents_skips_them_and_theirs_only() {
    assert_snapshot!(timeline(
        "fetch on_failure=skip
        parse <- fetch
        store <- parse
        other
        last <- other",
        "
        0s start
        1s fetch exits 1
        1s why store
        2s other ends
        3s last ends
        "
    ), @"
    0s    run started
    0s    fetch#1 starts
    0s    other#1 starts
    1s    fetch#1 failed for good: exit code 1
    1s    parse skipped because of fetch
    1s    store skipped because of parse
    1s    why store? skipped because of parse → skipped because of fetch → failed: exit code 1
    2s    other#1 succeeded
    2s    last#1 starts
    3s    last#1 succeeded
    3s    run failed
    ");
}

#[test]
fn a_tolerated_failure_with_skipped_dependents_leaves_a_run_succeeded() {
    assert_snapshot!(timeline(
        "fetch on_failure=skip critical=false
        parse <- fetch",
        "
        0s start
        1s fetch exits 1
        "
    ), @"
    0s    run started
    0s    fetch#1 starts
    1s    fetch#1 failed for good: exit code 1
    1s    parse skipped because of fetch
    1s    run succeeded
    ");
}

#[test]
fn a_step_is_skipped_though_another_dependency_still_runs() {
    assert_snapshot!(timeline(
        "bad on_failure=skip
        slow
        join <- bad slow",
        "
        0s start
        1s bad exits 1
        2s slow ends
        "
    ), @"
    0s    run started
    0s    bad#1 starts
    0s    slow#1 starts
    1s    bad#1 failed for good: exit code 1
    1s    join skipped because of bad
    2s    slow#1 succeeded
    2s    run failed
    ");
}

#[test]
fn continue_counts_as_settled() {
    assert_snapshot!(timeline(
        "lint on_failure=continue
        build <- lint",
        "
        0s start
        1s lint exits 1
        2s build ends
        "
    ), @"
    0s    run started
    0s    lint#1 starts
    1s    lint#1 failed for good: exit code 1
    1s    build#1 starts
    2s    build#1 succeeded
    2s    run succeeded
    ");
}

/// Only after the last attempt; its outputs stand under the original's id, whose status stays `failed`.
#[test]
fn a_fallback_runs_in_the_place_of_a_failed_step() {
    assert_snapshot!(timeline(
        "mirror fallback=origin retries=1
        use <- mirror invokes=outputs:mirror
        origin",
        "
        0s start
        1s mirror exits 1
        1s why use
        2s mirror exits 1
        2s why use
        3s origin ends file=b.tar
        3s status
        4s use ends
        4s outputs mirror
        "
    ), @r#"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed: exit code 1
    1s    mirror#2 due at 1s
    1s    mirror#2 starts
    1s    why use? needs mirror (running) and 0 others → attempt 2 runs since 1s
    2s    mirror#2 failed for good: exit code 1
    2s    origin#1 starts
    2s    why use? needs origin (running) and 0 others → attempt 1 runs since 2s
    3s    origin#1 succeeded
    3s    use#1 starts with {"file":"b.tar"}
    3s    mirror failed, use running, origin succeeded
    4s    use#1 succeeded
    4s    run succeeded
    4s    outputs of mirror: {"file":"b.tar"}
    "#);
}

#[test]
fn a_fallback_that_is_not_needed_is_skipped() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin",
        "
        0s start
        0s why origin
        1s mirror ends
        1s why origin
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    0s    why origin? fallback of mirror (running) → attempt 1 runs since 0s
    1s    mirror#1 succeeded
    1s    origin skipped: mirror does not need it
    1s    run succeeded
    1s    why origin? skipped because of mirror → succeeded
    ");
}

#[test]
fn a_fallback_of_a_skipped_step_is_skipped() {
    assert_snapshot!(timeline(
        "maybe cond=false fallback=other
        other
        after <- maybe",
        "
        0s start
        1s after ends
        "
    ), @"
    0s    run started
    0s    maybe skipped: its condition is false
    0s    other skipped: maybe does not need it
    0s    after#1 starts
    1s    after#1 succeeded
    1s    run succeeded
    ");
}

#[test]
fn a_fallback_that_fails_has_the_last_word_by_abort() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        2s origin exits 1
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin#1 starts
    2s    origin#1 failed for good: exit code 1
    2s    run stops: step `origin` failed and its policy is `abort`; everything is told to end
    2s    use canceled
    2s    run failed
    ");
}

#[test]
fn a_fallback_that_fails_has_the_last_word_by_skip_dependents() {
    assert_snapshot!(timeline(
        "mirror fallback=origin critical=false
        origin on_failure=skip critical=false
        use <- mirror
        other",
        "
        0s start
        1s mirror exits 1
        2s origin exits 1
        3s other ends
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    0s    other#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin#1 starts
    2s    origin#1 failed for good: exit code 1
    2s    use skipped because of mirror
    3s    other#1 succeeded
    3s    run succeeded
    ");
}

#[test]
fn a_fallback_that_fails_has_the_last_word_by_continue() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin on_failure=continue
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        2s origin exits 1
        3s use ends
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin#1 starts
    2s    origin#1 failed for good: exit code 1
    2s    use#1 starts
    3s    use#1 succeeded
    3s    run succeeded
    ");
}

#[test]
fn a_critical_step_whose_tolerant_fallback_failed_fails_the_run() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin critical=false
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        2s origin exits 1
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin#1 starts
    2s    origin#1 failed for good: exit code 1
    2s    use skipped because of mirror
    2s    run failed
    ");
}

#[test]
fn a_fallback_has_retries_and_timeouts_of_its_own() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin retries=1 timeout=5 delay=2
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        7s origin dies SIGTERM
        10s origin ends
        11s use ends
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin#1 starts
    6s    origin#1 told to end by 16s: it timed out
    7s    origin#1 timed out: ended by SIGTERM (signal 15)
    7s    origin#2 due at 9s
    9s    origin#2 starts
    10s   origin#2 succeeded
    10s   use#1 starts
    11s   use#1 succeeded
    11s   run succeeded
    ");
}

#[test]
fn fallbacks_form_a_chain() {
    assert_snapshot!(timeline(
        "one fallback=two
        two fallback=three
        three
        use <- one",
        "
        0s start
        1s one exits 1
        1s why use
        2s two exits 1
        2s why three
        3s three ends x=1
        3s outputs one
        3s outputs two
        4s use ends
        "
    ), @r#"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed for good: exit code 1
    1s    two#1 starts
    1s    why use? needs two (running) and 0 others → attempt 1 runs since 1s
    2s    two#1 failed for good: exit code 1
    2s    three#1 starts
    2s    why three? attempt 1 runs since 2s
    3s    three#1 succeeded
    3s    use#1 starts
    3s    outputs of one: {"x":"1"}
    3s    outputs of two: {"x":"1"}
    4s    use#1 succeeded
    4s    run succeeded
    "#);
}

#[test]
fn a_chain_of_fallbacks_ends_early() {
    assert_snapshot!(timeline(
        "one fallback=two
        two fallback=three
        three
        use <- one",
        "
        0s start
        1s one exits 1
        2s two ends
        3s use ends
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed for good: exit code 1
    1s    two#1 starts
    2s    two#1 succeeded
    2s    three skipped: two does not need it
    2s    use#1 starts
    3s    use#1 succeeded
    3s    run succeeded
    ");
}

#[test]
fn a_fallback_with_a_false_condition_makes_nothing_good() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin cond=false
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin skipped: its condition is false
    1s    use skipped because of mirror
    1s    run failed
    ");
}

#[test]
fn a_fallback_with_a_true_condition_is_judged_when_it_is_needed() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        origin cond=true
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        2s origin ends
        3s use ends
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    origin: its condition holds
    1s    origin#1 starts
    2s    origin#1 succeeded
    2s    use#1 starts
    3s    use#1 succeeded
    3s    run succeeded
    ");
}

#[test]
fn a_fallback_waits_for_its_own_dependencies() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        key
        origin <- key
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        1s why use
        3s key ends
        4s origin ends
        5s use ends
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    0s    key#1 starts
    1s    mirror#1 failed for good: exit code 1
    1s    why use? needs origin (waiting) and 0 others → needs key (running) and 0 others → attempt 1 runs since 0s
    3s    key#1 succeeded
    3s    origin#1 starts
    4s    origin#1 succeeded
    4s    use#1 starts
    5s    use#1 succeeded
    5s    run succeeded
    ");
}

#[test]
fn a_fallback_whose_dependency_failed_makes_nothing_good() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        key on_failure=skip critical=false
        origin <- key
        use <- mirror",
        "
        0s start
        1s mirror exits 1
        3s key exits 1
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    0s    key#1 starts
    1s    mirror#1 failed for good: exit code 1
    3s    key#1 failed for good: exit code 1
    3s    origin skipped because of key
    3s    use skipped because of mirror
    3s    run failed
    ");
}

#[test]
fn a_fallback_that_was_skipped_before_it_was_needed_makes_nothing_good() {
    assert_snapshot!(timeline(
        "mirror fallback=origin
        key on_failure=skip critical=false
        origin <- key
        use <- mirror",
        "
        0s start
        1s key exits 1
        3s mirror exits 1
        "
    ), @"
    0s    run started
    0s    mirror#1 starts
    0s    key#1 starts
    1s    key#1 failed for good: exit code 1
    1s    origin skipped because of key
    3s    mirror#1 failed for good: exit code 1
    3s    use skipped because of mirror
    3s    run failed
    ");
}

#[test]
fn a_false_condition_skips_the_step_and_dependents_go_on() {
    assert_snapshot!(timeline(
        "check
        deploy <- check cond=false
        report <- deploy",
        "
        0s start
        1s check ends
        1s why deploy
        2s report ends
        "
    ), @"
    0s    run started
    0s    check#1 starts
    1s    check#1 succeeded
    1s    deploy skipped: its condition is false
    1s    report#1 starts
    1s    why deploy? skipped: its condition is false
    2s    report#1 succeeded
    2s    run succeeded
    ");
}

#[test]
fn a_true_condition_lets_the_step_start() {
    assert_snapshot!(timeline(
        "check
        deploy <- check cond=true",
        "
        0s start
        1s check ends
        2s deploy ends
        "
    ), @"
    0s    run started
    0s    check#1 starts
    1s    check#1 succeeded
    1s    deploy: its condition holds
    1s    deploy#1 starts
    2s    deploy#1 succeeded
    2s    run succeeded
    ");
}

#[test]
fn a_condition_is_not_judged_where_a_dependency_failed() {
    assert_snapshot!(timeline(
        "check on_failure=skip
        deploy <- check cond=error",
        "
        0s start
        1s check exits 1
        "
    ), @"
    0s    run started
    0s    check#1 starts
    1s    check#1 failed for good: exit code 1
    1s    deploy skipped because of check
    1s    run failed
    ");
}

#[test]
fn a_condition_that_cannot_be_computed_fails_the_step_without_retry() {
    assert_snapshot!(timeline(
        "deploy cond=error retries=3 on_failure=skip
        report <- deploy",
        "
        0s start
        "
    ), @"
    0s    run started
    0s    deploy failed for good: no such key: `steps.x.outputs.y`
    0s    report skipped because of deploy
    0s    run failed
    ");
}

#[test]
fn an_invocation_that_cannot_be_computed_fails_the_step_without_retry() {
    assert_snapshot!(timeline(
        "deploy invokes=error retries=3
        report",
        "
        0s start
        1s report dies SIGTERM
        "
    ), @"
    0s    run started
    0s    deploy failed for good: no such key: `steps.x.outputs.y`
    0s    run stops: step `deploy` failed and its policy is `abort`; everything is told to end
    0s    report canceled
    0s    run failed
    1s    refused: run 1 has failed; it does not reopen
    ");
}

/// The second attempt does what the first one's event says.
#[test]
fn an_invocation_is_computed_once() {
    assert_snapshot!(timeline(
        "deploy invokes=v1.2 retries=1",
        "
        0s start
        1s deploy exits 1
        2s deploy ends
        "
    ), @r#"
    0s    run started
    0s    deploy#1 starts with "v1.2"
    1s    deploy#1 failed: exit code 1
    1s    deploy#2 due at 1s
    1s    deploy#2 starts
    2s    deploy#2 succeeded
    2s    run succeeded
    "#);
}

#[test]
fn retries_wait_a_fixed_delay_and_block_nobody() {
    assert_snapshot!(timeline(
        "plan concurrency=1
        flaky retries=2 delay=5
        other",
        "
        0s start
        1s flaky exits 1
        1s why flaky
        2s other ends
        7s flaky exits 1
        13s flaky exits 1
        "
    ), @"
    0s    run started
    0s    flaky#1 starts
    1s    flaky#1 failed: exit code 1
    1s    flaky#2 due at 6s
    1s    other#1 starts
    1s    why flaky? attempt 2 due at 6s
    2s    other#1 succeeded
    6s    flaky#2 starts
    7s    flaky#2 failed: exit code 1
    7s    flaky#3 due at 12s
    12s   flaky#3 starts
    13s   flaky#3 failed for good: exit code 1
    13s   run stops: step `flaky` failed and its policy is `abort`; everything is told to end
    13s   run failed
    ");
}

/// A retry that is due goes before steps that have not started.
#[test]
fn a_retry_that_is_due_waits_for_a_slot() {
    assert_snapshot!(timeline(
        "plan concurrency=1
        flaky retries=1 delay=1
        other
        third",
        "
        0s start
        1s flaky exits 1
        3s why flaky
        4s other ends
        5s flaky ends
        6s third ends
        "
    ), @"
    0s    run started
    0s    flaky#1 starts
    1s    flaky#1 failed: exit code 1
    1s    flaky#2 due at 2s
    1s    other#1 starts
    3s    why flaky? 1 at once: other
    4s    other#1 succeeded
    4s    flaky#2 starts
    5s    flaky#2 succeeded
    5s    third#1 starts
    6s    third#1 succeeded
    6s    run succeeded
    ");
}

#[test]
fn retry_delays_double_up_to_the_longest() {
    assert_snapshot!(timeline(
        "flaky retries=4 delay=10 backoff=exponential max_delay=60",
        "
        0s start
        0s flaky exits 1
        10s flaky exits 1
        30s flaky exits 1
        70s flaky exits 1
        130s flaky ends
        "
    ), @"
    0s    run started
    0s    flaky#1 starts
    0s    flaky#1 failed: exit code 1
    0s    flaky#2 due at 10s
    10s   flaky#2 starts
    10s   flaky#2 failed: exit code 1
    10s   flaky#3 due at 30s
    30s   flaky#3 starts
    30s   flaky#3 failed: exit code 1
    30s   flaky#4 due at 70s
    70s   flaky#4 starts
    70s   flaky#4 failed: exit code 1
    70s   flaky#5 due at 130s
    130s  flaky#5 starts
    130s  flaky#5 succeeded
    130s  run succeeded
    ");
}

/// Chance is a hash of run, step and attempt: each run of this test finds the same delays.
#[test]
fn jitter_moves_delays_either_way_but_never_over_the_longest() {
    assert_snapshot!(timeline(
        "one retries=1 delay=100 jitter=0.5
        two retries=1 delay=100 jitter=0.5
        three retries=1 delay=100 jitter=0.5
        four retries=1 delay=100 jitter=0.5
        five retries=1 delay=100 jitter=0.5 max_delay=100
        six retries=1 delay=100 jitter=0.5 max_delay=100",
        "
        0s start
        0s one exits 1
        0s two exits 1
        0s three exits 1
        0s four exits 1
        0s five exits 1
        0s six exits 1
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    0s    three#1 starts
    0s    four#1 starts
    0s    five#1 starts
    0s    six#1 starts
    0s    one#1 failed: exit code 1
    0s    one#2 due at 101.6s
    0s    two#1 failed: exit code 1
    0s    two#2 due at 134.9s
    0s    three#1 failed: exit code 1
    0s    three#2 due at 119.6s
    0s    four#1 failed: exit code 1
    0s    four#2 due at 52.2s
    0s    five#1 failed: exit code 1
    0s    five#2 due at 82.2s
    0s    six#1 failed: exit code 1
    0s    six#2 due at 69.2s
    ");
}

#[test]
fn a_timed_out_attempt_is_told_then_killed_then_tried_again() {
    assert_snapshot!(timeline(
        "hang timeout=5 stop_grace=2 retries=1 delay=3",
        "
        0s start
        7.1s hang dies SIGKILL
        11s hang ends
        "
    ), @"
    0s    run started
    0s    hang#1 starts
    5s    hang#1 told to end by 7s: it timed out
    7s    hang#1 killed: it timed out
    7.1s  hang#1 timed out: ended by SIGKILL (signal 9)
    7.1s  hang#2 due at 10.1s
    10.1s hang#2 starts
    11s   hang#2 succeeded
    11s   run succeeded
    ");
}

#[test]
fn an_attempt_that_ends_well_after_its_timeout_has_timed_out() {
    assert_snapshot!(timeline(
        "hang timeout=5",
        "
        0s start
        6s hang ends
        "
    ), @"
    0s    run started
    0s    hang#1 starts
    5s    hang#1 told to end by 15s: it timed out
    6s    hang#1 timed out for good: exit code 0
    6s    run stops: step `hang` failed and its policy is `abort`; everything is told to end
    6s    run failed
    ");
}

#[test]
fn a_run_that_takes_too_long_stops_and_has_failed() {
    assert_snapshot!(timeline(
        "plan timeout=10
        one stop_grace=2
        two <- one",
        "
        0s start
        12s one dies SIGKILL
        "
    ), @"
    0s    run started
    0s    one#1 starts
    10s   run stops: the run took longer than its `timeout_sec`; everything is told to end
    10s   two canceled
    10s   one#1 told to end by 12s: the run stops
    12s   one#1 killed: the run stops
    12s   one#1 canceled: ended by SIGKILL (signal 9)
    12s   run failed
    ");
}

#[test]
fn a_run_whose_last_result_came_in_is_complete_however_late_it_is() {
    assert_snapshot!(timeline(
        "plan timeout=10
        one",
        "
        0s start
        9s one ends
        9s crash before the last 1
        60s resume
        "
    ), @"
    0s    run started
    0s    one#1 starts
    9s    one#1 succeeded
    9s    run succeeded
    9s    the owner dies; the last 1 events were not on disk
    60s   run resumed
    60s   run succeeded
    ");
}

#[test]
fn a_run_cannot_outlast_its_time_limit_by_a_crash() {
    assert_snapshot!(timeline(
        "plan timeout=10
        one",
        "
        0s start
        9s crash
        60s resume
        60s why one
        "
    ), @"
    0s    run started
    0s    one#1 starts
    9s    the owner dies
    60s   run resumed
    60s   one#1 lost
    60s   one#2 due at 60s
    60s   run stops: the run took longer than its `timeout_sec`; everything is told to end
    60s   one canceled
    60s   run failed
    60s   why one? canceled: the run took longer than its `timeout_sec`
    ");
}

#[test]
fn an_abort_follows_from_a_log_that_ends_with_the_failure() {
    assert_snapshot!(timeline(
        "one grace=5
        two
        three <- one",
        "
        0s start
        1s one exits 1
        1s crash before the last 2
        3s resume
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    1s    one#1 failed for good: exit code 1
    1s    run stops: step `one` failed and its policy is `abort`; what runs may go on until 6s
    1s    three canceled
    1s    the owner dies; the last 2 events were not on disk
    3s    run resumed
    3s    two#1 lost
    3s    run stops: step `one` failed and its policy is `abort`; what runs may go on until 6s
    3s    two canceled
    3s    three canceled
    3s    run failed
    ");
}

/// The store commits the failure and the retry together, so this cannot be; it must not hang all the same.
#[test]
fn a_retry_follows_from_a_log_that_ends_with_the_failure() {
    assert_snapshot!(timeline(
        "one retries=1 delay=5",
        "
        0s start
        1s one exits 1
        1s crash before the last 1
        2s resume
        3s one exits 1
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed: exit code 1
    1s    one#2 due at 6s
    1s    the owner dies; the last 1 events were not on disk
    2s    run resumed
    2s    one#2 starts
    3s    one#2 failed for good: exit code 1
    3s    run stops: step `one` failed and its policy is `abort`; everything is told to end
    3s    run failed
    ");
}

#[test]
fn a_cancel_ends_what_runs_and_what_waits() {
    assert_snapshot!(timeline(
        "one stop_grace=4
        two <- one
        three retries=1 delay=50",
        "
        0s start
        1s three exits 1
        2s cancel
        2s why one
        2s why two
        6s one dies SIGKILL
        6s why three
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    three#1 starts
    1s    three#1 failed: exit code 1
    1s    three#2 due at 51s
    2s    run stops: canceled by ada; everything is told to end
    2s    two canceled
    2s    three canceled
    2s    one#1 told to end by 6s: the run stops
    2s    why one? attempt 1 runs since 0s, told to end
    2s    why two? canceled: canceled by ada
    6s    one#1 killed: the run stops
    6s    one#1 canceled: ended by SIGKILL (signal 9)
    6s    run canceled
    6s    why three? canceled: canceled by ada
    ");
}

/// `two` was being ended because of its timeout, so that is what it died of.
#[test]
fn a_second_cancel_hurries() {
    assert_snapshot!(timeline(
        "one
        two timeout=1",
        "
        0s start
        2s cancel
        3s hurry
        3s one dies SIGKILL
        3s two dies SIGKILL
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    1s    two#1 told to end by 11s: it timed out
    2s    run stops: canceled by ada; everything is told to end
    2s    one#1 told to end by 12s: the run stops
    3s    run stops: canceled by ada; everything is killed
    3s    one#1 killed: the run stops
    3s    two#1 killed: it timed out
    3s    one#1 canceled: ended by SIGKILL (signal 9)
    3s    two#1 timed out for good: ended by SIGKILL (signal 9)
    3s    run canceled
    ");
}

/// The run has failed: that came first.
#[test]
fn a_cancel_during_an_abort_takes_the_grace_away() {
    assert_snapshot!(timeline(
        "one grace=100
        two",
        "
        0s start
        1s one exits 1
        2s cancel
        3s two dies SIGTERM
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    1s    one#1 failed for good: exit code 1
    1s    run stops: step `one` failed and its policy is `abort`; what runs may go on until 101s
    2s    run stops: canceled by ada; everything is told to end
    2s    two#1 told to end by 12s: the run stops
    3s    two#1 canceled: ended by SIGTERM (signal 15)
    3s    run failed
    ");
}

#[test]
fn a_cancel_before_the_start_cancels_everything() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one",
        "
        0s rival takes tree
        0s start
        1s cancel
        "
    ), @"
    0s    rival has lock tree
    0s    run waits for lock tree
    1s    run stops: canceled by ada; everything is told to end
    1s    run lets its locks go
    1s    one canceled
    1s    run canceled
    ");
}

#[test]
fn a_timeout_of_a_step_counts_during_the_grace() {
    assert_snapshot!(timeline(
        "one grace=100
        two timeout=5 retries=3",
        "
        0s start
        1s one exits 1
        6s two dies SIGTERM
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    1s    one#1 failed for good: exit code 1
    1s    run stops: step `one` failed and its policy is `abort`; what runs may go on until 101s
    5s    two#1 told to end by 15s: it timed out
    6s    two#1 timed out for good: ended by SIGTERM (signal 15)
    6s    run failed
    ");
}

#[test]
fn a_lost_attempt_is_tried_again_at_once_and_uses_up_no_retry() {
    assert_snapshot!(timeline(
        "one retries=1 delay=60",
        "
        0s start
        1s crash
        1s why one
        5s resume
        6s one exits 1
        66s one exits 1
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    1s    why one? run 1 is abandoned
    5s    run resumed
    5s    one#1 lost
    5s    one#2 due at 5s
    5s    one#2 starts
    6s    one#2 failed: exit code 1
    6s    one#3 due at 66s
    66s   one#3 starts
    66s   one#3 failed for good: exit code 1
    66s   run stops: step `one` failed and its policy is `abort`; everything is told to end
    66s   run failed
    ");
}

#[test]
fn three_lost_attempts_in_a_row_fail_the_step() {
    assert_snapshot!(timeline(
        "one retries=9 on_failure=continue
        two <- one",
        "
        0s start
        1s crash
        1s resume
        2s crash
        2s resume
        3s crash
        3s resume
        4s two ends
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    1s    run resumed
    1s    one#1 lost
    1s    one#2 due at 1s
    1s    one#2 starts
    2s    the owner dies
    2s    run resumed
    2s    one#2 lost
    2s    one#3 due at 2s
    2s    one#3 starts
    3s    the owner dies
    3s    run resumed
    3s    one#3 lost for good
    3s    two#1 starts
    4s    two#1 succeeded
    4s    run succeeded
    ");
}

#[test]
fn a_failure_in_between_starts_the_count_of_lost_attempts_anew() {
    assert_snapshot!(timeline(
        "one retries=9",
        "
        0s start
        1s crash
        1s resume
        2s crash
        2s resume
        3s one exits 1
        4s crash
        4s resume
        5s crash
        5s resume
        6s one ends
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    1s    run resumed
    1s    one#1 lost
    1s    one#2 due at 1s
    1s    one#2 starts
    2s    the owner dies
    2s    run resumed
    2s    one#2 lost
    2s    one#3 due at 2s
    2s    one#3 starts
    3s    one#3 failed: exit code 1
    3s    one#4 due at 3s
    3s    one#4 starts
    4s    the owner dies
    4s    run resumed
    4s    one#4 lost
    4s    one#5 due at 4s
    4s    one#5 starts
    5s    the owner dies
    5s    run resumed
    5s    one#5 lost
    5s    one#6 due at 5s
    5s    one#6 starts
    6s    one#6 succeeded
    6s    run succeeded
    ");
}

#[test]
fn a_third_lost_attempt_aborts_where_that_is_the_policy() {
    assert_snapshot!(timeline(
        "one
        two <- one",
        "
        0s start
        1s crash
        1s resume
        2s crash
        2s resume
        3s crash
        3s resume
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    1s    run resumed
    1s    one#1 lost
    1s    one#2 due at 1s
    1s    one#2 starts
    2s    the owner dies
    2s    run resumed
    2s    one#2 lost
    2s    one#3 due at 2s
    2s    one#3 starts
    3s    the owner dies
    3s    run resumed
    3s    one#3 lost for good
    3s    run stops: step `one` failed and its policy is `abort`; everything is told to end
    3s    two canceled
    3s    run failed
    ");
}

#[test]
fn an_attempt_lost_while_the_run_stops_is_not_tried_again() {
    assert_snapshot!(timeline(
        "one
        two",
        "
        0s start
        1s cancel
        2s crash
        3s resume
        "
    ), @"
    0s    run started
    0s    one#1 starts
    0s    two#1 starts
    1s    run stops: canceled by ada; everything is told to end
    1s    one#1 told to end by 11s: the run stops
    1s    two#1 told to end by 11s: the run stops
    2s    the owner dies
    3s    run resumed
    3s    one#1 lost
    3s    two#1 lost
    3s    one canceled
    3s    two canceled
    3s    run canceled
    ");
}

#[test]
fn an_owner_that_lets_go_records_what_it_ended() {
    assert_snapshot!(timeline(
        "one
        two <- one",
        "
        0s start
        1s abandon
        2s why one
        3s resume
        4s one ends
        5s two ends
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 lost
    1s    one#2 due at 1s
    2s    why one? run 1 is abandoned
    3s    run resumed
    3s    one#2 starts
    4s    one#2 succeeded
    4s    two#1 starts
    5s    two#1 succeeded
    5s    run succeeded
    ");
}

#[test]
fn a_late_answer_is_refused() {
    assert_snapshot!(timeline(
        "one retries=1",
        "
        0s start
        1s one exits 1
        2s one #1 exits 0
        3s one #3 exits 0
        4s one #2 exits 0
        5s one #2 exits 1
        6s cancel
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed: exit code 1
    1s    one#2 due at 1s
    1s    one#2 starts
    2s    refused: attempt 1 of step `one` is not in flight; its late answer is refused
    3s    refused: attempt 3 of step `one` is not in flight; its late answer is refused
    4s    one#2 succeeded
    4s    run succeeded
    5s    refused: run 1 has succeeded; it does not reopen
    6s    refused: run 1 has succeeded; it does not reopen
    ");
}

#[test]
fn exit_codes_that_are_accepted_mean_success() {
    assert_snapshot!(timeline(
        "grep accept=0,1 on_failure=continue
        diff accept=1 on_failure=continue",
        "
        0s start
        1s grep exits 1
        2s diff exits 0
        "
    ), @"
    0s    run started
    0s    grep#1 starts
    0s    diff#1 starts
    1s    grep#1 succeeded
    2s    diff#1 failed for good: exit code 0
    2s    run succeeded
    ");
}

#[test]
fn a_signal_is_never_success() {
    assert_snapshot!(timeline(
        "one accept=9,137",
        "
        0s start
        1s one dies SIGKILL
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed for good: ended by SIGKILL (signal 9)
    1s    run stops: step `one` failed and its policy is `abort`; everything is told to end
    1s    run failed
    ");
}

#[test]
fn locks_are_first_come_first_served() {
    assert_snapshot!(timeline(
        "one locks=tree
        two locks=tree
        three locks=tree",
        "
        0s start
        0s why three
        1s one ends
        2s two ends
        3s three ends
        "
    ), @"
    0s    run started
    0s    one has lock tree
    0s    one#1 starts
    0s    two waits for lock tree
    0s    why three? lock tree: step `one` of run 1 has it since 0s
    1s    one#1 succeeded
    1s    one lets its locks go
    1s    two has lock tree
    1s    two#1 starts
    1s    three waits for lock tree
    2s    two#1 succeeded
    2s    two lets its locks go
    2s    three has lock tree
    2s    three#1 starts
    3s    three#1 succeeded
    3s    three lets its locks go
    3s    run succeeded
    ");
}

#[test]
fn locks_are_taken_all_at_once() {
    assert_snapshot!(timeline(
        "one locks=tree,remote
        two locks=index",
        "
        0s rival takes remote
        0s start
        1s why one
        2s two ends
        3s rival lets go
        4s one ends
        "
    ), @"
    0s    rival has lock remote
    0s    run started
    0s    two has lock index
    0s    two#1 starts
    0s    one waits for lock remote tree
    1s    why one? lock remote: run 99 has it since 0s
    2s    two#1 succeeded
    2s    two lets its locks go
    3s    rival lets its locks go
    3s    one has lock remote tree
    3s    one#1 starts
    4s    one#1 succeeded
    4s    one lets its locks go
    4s    run succeeded
    ");
}

#[test]
fn a_slot_is_kept_for_an_earlier_step_that_can_have_its_locks() {
    assert_snapshot!(timeline(
        "plan concurrency=2
        one locks=tree
        two locks=index
        three
        four",
        "
        0s start
        1s one ends
        2s two ends
        3s three ends
        4s four ends
        "
    ), @"
    0s    run started
    0s    one has lock tree
    0s    one#1 starts
    0s    two has lock index
    0s    two#1 starts
    1s    one#1 succeeded
    1s    one lets its locks go
    1s    three#1 starts
    2s    two#1 succeeded
    2s    two lets its locks go
    2s    four#1 starts
    3s    three#1 succeeded
    4s    four#1 succeeded
    4s    run succeeded
    ");
}

/// Only `two` is in line when the rival comes, so runs take turns.
#[test]
fn a_run_has_one_place_in_line_for_each_set_of_locks() {
    assert_snapshot!(timeline(
        "one locks=tree
        two locks=tree
        three locks=tree",
        "
        0s start
        1s rival waits for tree
        2s one ends
        3s two ends
        3s why three
        3s rival takes tree
        4s rival lets go
        5s three ends
        "
    ), @"
    0s    run started
    0s    one has lock tree
    0s    one#1 starts
    0s    two waits for lock tree
    1s    rival waits for lock tree
    2s    one#1 succeeded
    2s    one lets its locks go
    2s    two has lock tree
    2s    two#1 starts
    2s    three waits for lock tree
    3s    two#1 succeeded
    3s    two lets its locks go
    3s    why three? lock tree: run 99 came first
    3s    rival has lock tree
    4s    rival lets its locks go
    4s    three has lock tree
    4s    three#1 starts
    5s    three#1 succeeded
    5s    three lets its locks go
    5s    run succeeded
    ");
}

#[test]
fn waiting_for_a_lock_holds_no_slot() {
    assert_snapshot!(timeline(
        "plan concurrency=1
        one locks=tree
        two",
        "
        0s rival takes tree
        0s start
        1s rival lets go
        1s why one
        2s two ends
        3s one ends
        "
    ), @"
    0s    rival has lock tree
    0s    run started
    0s    two#1 starts
    1s    rival lets its locks go
    1s    why one? 1 at once: two
    2s    two#1 succeeded
    2s    one has lock tree
    2s    one#1 starts
    3s    one#1 succeeded
    3s    one lets its locks go
    3s    run succeeded
    ");
}

#[test]
fn whoever_waits_longer_is_first_even_for_a_lock_that_is_free() {
    assert_snapshot!(timeline(
        "one locks=tree",
        "
        0s rival waits for tree branch
        0s start
        0s why one
        1s rival takes tree branch
        2s rival lets go
        3s one ends
        "
    ), @"
    0s    rival waits for lock tree branch
    0s    run started
    0s    one waits for lock tree
    0s    why one? lock tree: run 99 came first
    1s    rival has lock tree branch
    2s    rival lets its locks go
    2s    one has lock tree
    2s    one#1 starts
    3s    one#1 succeeded
    3s    one lets its locks go
    3s    run succeeded
    ");
}

#[test]
fn locks_are_let_go_between_attempts() {
    assert_snapshot!(timeline(
        "one locks=tree retries=1 delay=10
        two locks=tree",
        "
        0s start
        1s one exits 1
        5s two ends
        12s one ends
        "
    ), @"
    0s    run started
    0s    one has lock tree
    0s    one#1 starts
    0s    two waits for lock tree
    1s    one#1 failed: exit code 1
    1s    one#2 due at 11s
    1s    one lets its locks go
    1s    two has lock tree
    1s    two#1 starts
    5s    two#1 succeeded
    5s    two lets its locks go
    11s   one has lock tree
    11s   one#2 starts
    12s   one#2 succeeded
    12s   one lets its locks go
    12s   run succeeded
    ");
}

#[test]
fn a_lock_wait_that_takes_too_long_fails_the_step() {
    assert_snapshot!(timeline(
        "one locks=tree lock_wait=5 retries=3 on_failure=skip
        two
        three <- one",
        "
        0s rival takes tree
        0s start
        6s two ends
        "
    ), @"
    0s    rival has lock tree
    0s    run started
    0s    two#1 starts
    0s    one waits for lock tree
    5s    one failed: waited 5 s for lock `tree`, which run 99 has or wants before it
    5s    one#1 due at 5s
    5s    one lets its locks go
    5s    one waits for lock tree
    6s    two#1 succeeded
    ");
}

#[test]
fn a_lock_wait_ends_in_time_though_no_slot_is_free() {
    assert_snapshot!(timeline(
        "plan concurrency=1
        one locks=tree lock_wait=5 on_failure=skip
        two retries=1 delay=1",
        "
        0s rival takes tree
        0s start
        1s two exits 1
        1s why one
        8s two ends
        "
    ), @"
    0s    rival has lock tree
    0s    run started
    0s    two#1 starts
    1s    two#1 failed: exit code 1
    1s    two#2 due at 2s
    1s    one waits for lock tree
    1s    why one? lock tree: run 99 has it since 0s
    2s    two#2 starts
    6s    one failed for good: waited 5 s for lock `tree`, which run 99 has or wants before it
    6s    one lets its locks go
    8s    two#2 succeeded
    8s    run failed
    ");
}

#[test]
fn a_plan_lock_is_held_from_start_to_end() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one
        two <- one",
        "
        0s rival takes tree
        0s start
        0s why two
        2s rival lets go
        3s one ends
        4s two ends
        "
    ), @"
    0s    rival has lock tree
    0s    run waits for lock tree
    0s    why two? the plan's lock tree: run 99
    2s    rival lets its locks go
    2s    run has lock tree
    2s    run started
    2s    one#1 starts
    3s    one#1 succeeded
    3s    two#1 starts
    4s    two#1 succeeded
    4s    run succeeded
    4s    run lets its locks go
    ");
}

#[test]
fn a_plan_lock_that_takes_too_long_fails_the_run() {
    assert_snapshot!(timeline(
        "plan locks=tree lock_wait=5
        one",
        "
        0s rival takes tree
        0s start
        6s status
        "
    ), @"
    0s    rival has lock tree
    0s    run waits for lock tree
    5s    run stops: lock `tree` was not to be had in time: run 99 has it; everything is told to end
    5s    run lets its locks go
    5s    one canceled
    5s    run failed
    6s    one canceled
    ");
}

#[test]
fn a_step_need_not_ask_for_what_its_run_holds() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one locks=tree,index
        two locks=tree",
        "
        0s start
        1s one ends
        2s two ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    two#1 starts
    0s    one has lock index
    0s    one#1 starts
    1s    one#1 succeeded
    1s    one lets its locks go
    2s    two#1 succeeded
    2s    run succeeded
    2s    run lets its locks go
    ");
}

#[test]
fn a_resumed_run_still_has_its_plan_locks_and_takes_step_locks_again() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one locks=index",
        "
        0s start
        1s crash
        2s resume
        3s one ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    one has lock index
    0s    one#1 starts
    1s    the owner dies
    2s    run resumed
    2s    one#1 lost
    2s    one#2 due at 2s
    2s    one lets its locks go
    2s    run has lock tree
    2s    run started
    2s    one has lock index
    2s    one#2 starts
    3s    one#2 succeeded
    3s    one lets its locks go
    3s    run succeeded
    3s    run lets its locks go
    ");
}

#[test]
fn a_resumed_run_waits_for_its_plan_locks_where_somebody_freed_and_took_them() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one
        two <- one",
        "
        0s start
        1s crash
        2s run loses its locks
        2s rival takes tree
        3s resume
        3s why one
        3s why two
        5s rival lets go
        6s one ends
        7s two ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    2s    run lets its locks go
    2s    rival has lock tree
    3s    run resumed
    3s    one#1 lost
    3s    one#2 due at 3s
    3s    run waits for lock tree
    3s    why one? the plan's lock tree: run 99
    3s    why two? the plan's lock tree: run 99
    5s    rival lets its locks go
    5s    run has lock tree
    5s    run started
    5s    one#2 starts
    6s    one#2 succeeded
    6s    two#1 starts
    7s    two#1 succeeded
    7s    run succeeded
    7s    run lets its locks go
    ");
}

#[test]
fn a_resumed_run_does_not_queue_behind_those_who_wait_for_it() {
    assert_snapshot!(timeline(
        "plan locks=tree
        one",
        "
        0s start
        1s crash
        2s rival waits for tree
        3s resume
        4s one ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    one#1 starts
    1s    the owner dies
    2s    rival waits for lock tree
    3s    run resumed
    3s    one#1 lost
    3s    one#2 due at 3s
    3s    run has lock tree
    3s    run started
    3s    one#2 starts
    4s    one#2 succeeded
    4s    run succeeded
    4s    run lets its locks go
    ");
}

/// Else the rival would wait for the run and the run for the rival, for ever.
#[test]
fn a_step_passes_those_who_wait_for_its_own_run() {
    assert_snapshot!(timeline(
        "plan locks=pipeline
        merge
        push <- merge locks=branch",
        "
        0s start
        1s rival waits for branch pipeline
        2s merge ends
        3s push ends
        "
    ), @"
    0s    run has lock pipeline
    0s    run started
    0s    merge#1 starts
    1s    rival waits for lock branch pipeline
    2s    merge#1 succeeded
    2s    push has lock branch
    2s    push#1 starts
    3s    push#1 succeeded
    3s    push lets its locks go
    3s    run succeeded
    3s    run lets its locks go
    ");
}

#[test]
fn why_goes_back_to_the_first_cause() {
    assert_snapshot!(timeline(
        "plan concurrency=1
        one
        two retries=1 delay=9
        three <- two
        four <- three one
        five fallback=six
        six",
        "
        0s why four
        0s start
        0s why four
        0s why three
        0s why six
        1s one ends
        2s two exits 1
        2s why four
        3s crash
        3s why four
        "
    ), @"
    0s    why four? needs one (waiting) and 1 others → run 1 is abandoned
    0s    run started
    0s    one#1 starts
    0s    why four? needs one (running) and 1 others → attempt 1 runs since 0s
    0s    why three? needs two (waiting) and 0 others → 1 at once: one
    0s    why six? fallback of five (waiting) → 1 at once: one
    1s    one#1 succeeded
    1s    two#1 starts
    2s    two#1 failed: exit code 1
    2s    two#2 due at 11s
    2s    five#1 starts
    2s    why four? needs three (waiting) and 0 others → needs two (retrying) and 0 others → attempt 2 due at 11s
    3s    the owner dies
    3s    why four? needs three (waiting) and 0 others → needs two (retrying) and 0 others → attempt 2 due at 11s
    ");
}

#[test]
fn kept_steps_count_as_succeeded_and_do_not_run() {
    assert_snapshot!(timeline(
        "plan kept=one..two
        one
        two <- one
        three <- two
        four",
        "
        0s start
        0s why one
        1s three ends
        2s four ends
        2s status
        "
    ), @"
    0s    run started
    0s    three#1 starts
    0s    four#1 starts
    0s    why one? kept: outside the slice, or kept from the run that this one retries
    1s    three#1 succeeded
    2s    four#1 succeeded
    2s    run succeeded
    2s    one kept, two kept, three succeeded, four succeeded
    ");
}

#[test]
fn a_run_in_which_everything_is_kept_is_complete_at_once() {
    assert_snapshot!(timeline(
        "plan kept=one..two
        one
        two <- one",
        "
        0s start
        "
    ), @"
    0s    run started
    0s    run succeeded
    ");
}

#[test]
fn a_kept_step_needs_no_fallback() {
    assert_snapshot!(timeline(
        "plan kept=one..one
        one fallback=two
        two
        three <- one",
        "
        0s start
        1s three ends
        "
    ), @"
    0s    run started
    0s    two skipped: one does not need it
    0s    three#1 starts
    1s    three#1 succeeded
    1s    run succeeded
    ");
}

#[test]
fn a_plan_without_steps_succeeds() {
    assert_snapshot!(timeline(
        "plan concurrency=1",
        "
        0s start
        "
    ), @"
    0s    run started
    0s    run succeeded
    ");
}

/// The plan's checker warns of it; the core must not wait for it.
#[test]
fn a_fallback_named_by_another_policy_is_not_needed() {
    assert_snapshot!(timeline(
        "one fallback=two on_failure=continue
        two
        three <- one",
        "
        0s start
        1s one exits 1
        2s three ends
        "
    ), @"
    0s    run started
    0s    one#1 starts
    1s    one#1 failed for good: exit code 1
    1s    two skipped: one does not need it
    1s    three#1 starts
    2s    three#1 succeeded
    2s    run succeeded
    ");
}

/// They wait for every other step, and then run as steps do: by their own dependencies, side by side.
#[test]
fn what_stands_in_finally_runs_after_all_else() {
    assert_snapshot!(timeline(
        "build
        clean finally=true
        report <- clean finally=true
        notify finally=true
        test <- build",
        "
        0s start
        0s why report
        1s build ends
        1s why clean
        2s test ends
        3s clean ends
        4s report ends
        5s notify ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    0s    why report? needs build (running) and 1 others → attempt 1 runs since 0s
    1s    build#1 succeeded
    1s    test#1 starts
    1s    why clean? needs test (running) and 0 others → attempt 1 runs since 1s
    2s    test#1 succeeded
    2s    all else succeeded: what stands in finally may start
    2s    clean#1 starts
    2s    notify#1 starts
    3s    clean#1 succeeded
    3s    report#1 starts
    4s    report#1 succeeded
    5s    notify#1 succeeded
    5s    run succeeded
    ");
}

#[test]
fn finally_runs_after_a_failure_and_makes_nothing_good() {
    assert_snapshot!(timeline(
        "build
        deploy <- build
        slow
        clean finally=true",
        "
        0s start
        1s build exits 1
        2s slow ends
        2s why deploy
        3s clean ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    0s    slow#1 starts
    1s    build#1 failed for good: exit code 1
    1s    run stops: step `build` failed and its policy is `abort`; everything is told to end
    1s    deploy canceled
    1s    slow#1 told to end by 11s: the run stops
    2s    slow#1 canceled: exit code 0
    2s    all else failed: what stands in finally may start
    2s    clean#1 starts
    2s    why deploy? canceled: step `build` failed and its policy is `abort` → failed: exit code 1
    3s    clean#1 succeeded
    3s    run failed
    ");
}

#[test]
fn finally_runs_after_a_cancel() {
    assert_snapshot!(timeline(
        "build
        clean finally=true",
        "
        0s start
        1s cancel
        1s why clean
        2s build dies SIGTERM
        3s clean ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    1s    run stops: canceled by ada; everything is told to end
    1s    build#1 told to end by 11s: the run stops
    1s    why clean? needs build (running) and 0 others → attempt 1 runs since 0s, told to end
    2s    build#1 canceled: ended by SIGTERM (signal 15)
    2s    all else canceled: what stands in finally may start
    2s    clean#1 starts
    3s    clean#1 succeeded
    3s    run canceled
    ");
}

/// What is in the way of a second cancel is `finally` itself; the run stays what it was.
#[test]
fn a_cancel_during_finally_ends_that_too() {
    assert_snapshot!(timeline(
        "build
        clean finally=true
        report <- clean finally=true",
        "
        0s start
        1s build exits 1
        2s cancel
        2s why report
        3s clean dies SIGTERM
        3s why report
        "
    ), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 failed for good: exit code 1
    1s    run stops: step `build` failed and its policy is `abort`; everything is told to end
    1s    all else failed: what stands in finally may start
    1s    clean#1 starts
    2s    run stops: canceled by ada; everything is told to end
    2s    report canceled
    2s    clean#1 told to end by 12s: the run stops
    2s    why report? canceled: canceled by ada
    3s    clean#1 canceled: ended by SIGTERM (signal 15)
    3s    run failed
    3s    why report? canceled: canceled by ada
    ");
}

#[test]
fn a_cancel_during_finally_of_a_good_run_cancels_the_run() {
    assert_snapshot!(timeline(
        "build
        clean finally=true",
        "
        0s start
        1s build ends
        2s hurry
        2s clean dies SIGKILL
        "
    ), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    2s    run stops: canceled by ada; everything is killed
    2s    clean#1 killed: the run stops
    2s    clean#1 canceled: ended by SIGKILL (signal 9)
    2s    run canceled
    ");
}

/// `abort` there means `skip_dependents`: the others in `finally` run whatever happens.
#[test]
fn a_failure_in_finally_fails_a_good_run_and_stops_nothing() {
    assert_snapshot!(timeline(
        "build
        clean finally=true retries=1
        report <- clean finally=true
        notify finally=true",
        "
        0s start
        1s build ends
        2s clean exits 1
        3s clean exits 1
        4s notify ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    1s    notify#1 starts
    2s    clean#1 failed: exit code 1
    2s    clean#2 due at 2s
    2s    clean#2 starts
    3s    clean#2 failed for good: exit code 1
    3s    report skipped because of clean
    4s    notify#1 succeeded
    4s    run failed
    ");
}

#[test]
fn a_tolerated_failure_in_finally_changes_nothing() {
    assert_snapshot!(timeline(
        "build
        clean finally=true critical=false",
        "
        0s start
        1s build ends
        2s clean exits 1
        "
    ), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    2s    clean#1 failed for good: exit code 1
    2s    run succeeded
    ");
}

/// The time that the steps may take is over, and what cleans up after them has its own.
#[test]
fn the_runs_timeout_leaves_finally_alone() {
    assert_snapshot!(timeline(
        "plan timeout=10
        build
        clean finally=true timeout=60",
        "
        0s start
        10s build dies SIGTERM
        30s clean ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    10s   run stops: the run took longer than its `timeout_sec`; everything is told to end
    10s   build#1 told to end by 20s: the run stops
    10s   build#1 canceled: ended by SIGTERM (signal 15)
    10s   all else failed: what stands in finally may start
    10s   clean#1 starts
    30s   clean#1 succeeded
    30s   run failed
    ");
}

#[test]
fn a_run_that_never_started_has_nothing_to_clean_up() {
    assert_snapshot!(timeline(
        "plan locks=tree
        build
        clean finally=true",
        "
        0s rival takes tree
        0s start
        1s cancel
        "
    ), @"
    0s    rival has lock tree
    0s    run waits for lock tree
    1s    run stops: canceled by ada; everything is told to end
    1s    run lets its locks go
    1s    build canceled
    1s    clean canceled
    1s    run canceled
    ");
}

/// A crash loses the attempt and not the fact that `finally` has begun.
#[test]
fn finally_goes_on_after_a_crash() {
    assert_snapshot!(timeline(
        "plan locks=tree
        build
        clean finally=true
        report <- clean finally=true",
        "
        0s start
        1s build exits 1
        2s crash
        3s run loses its locks
        3s resume
        4s clean ends
        5s report ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    build#1 starts
    1s    build#1 failed for good: exit code 1
    1s    run stops: step `build` failed and its policy is `abort`; everything is told to end
    1s    all else failed: what stands in finally may start
    1s    clean#1 starts
    2s    the owner dies
    3s    run lets its locks go
    3s    run resumed
    3s    clean#1 lost
    3s    clean#2 due at 3s
    3s    run has lock tree
    3s    run started
    3s    clean#2 starts
    4s    clean#2 succeeded
    4s    report#1 starts
    5s    report#1 succeeded
    5s    run failed
    5s    run lets its locks go
    ");
}

/// Where all steps are kept, what is left is what runs always.
#[test]
fn finally_runs_in_a_run_that_keeps_all_else() {
    assert_snapshot!(timeline(
        "plan kept=build..build
        build
        clean finally=true",
        "
        0s start
        1s clean ends
        "
    ), @"
    0s    run started
    0s    all else succeeded: what stands in finally may start
    0s    clean#1 starts
    1s    clean#1 succeeded
    1s    run succeeded
    ");
}

#[test]
fn a_run_that_is_late_says_so_once() {
    assert_snapshot!(timeline(
        "plan sla=5
        build",
        "
        0s start
        9s crash
        10s resume
        11s build ends
        "
    ), @"
    0s    run started
    0s    build#1 starts
    5s    the run should have been over at 5s
    9s    the owner dies
    10s   run resumed
    10s   build#1 lost
    10s   build#2 due at 10s
    10s   build#2 starts
    11s   build#2 succeeded
    11s   run succeeded
    ");
}

/// From the submission on, not from the start; and a run that ends in time says nothing.
#[test]
fn a_run_that_waits_for_its_locks_can_be_late() {
    assert_snapshot!(timeline(
        "plan sla=5 locks=tree
        build",
        "
        0s rival takes tree
        0s start
        7s rival lets go
        8s build ends
        "
    ), @"
    0s    rival has lock tree
    0s    run waits for lock tree
    5s    the run should have been over at 5s
    7s    rival lets its locks go
    7s    run has lock tree
    7s    run started
    7s    build#1 starts
    8s    build#1 succeeded
    8s    run succeeded
    8s    run lets its locks go
    ");
    assert_snapshot!(timeline("plan sla=5
        build", "
        0s start
        4s build ends
        9s tick
        "), @"
    0s    run started
    0s    build#1 starts
    4s    build#1 succeeded
    4s    run succeeded
    ");
}

#[test]
fn the_outputs_of_a_plan_are_recorded_when_it_has_succeeded() {
    assert_snapshot!(timeline(
        "plan outputs=7
        build
        clean finally=true",
        "
        0s start
        1s build ends
        2s clean ends
        "
    ), @r#"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    2s    clean#1 succeeded
    2s    run succeeded with {"out":"7"}
    "#);
}

#[test]
fn a_run_that_failed_has_no_outputs() {
    assert_snapshot!(timeline("plan outputs=error
        build", "
        0s start
        1s build exits 1
        "), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 failed for good: exit code 1
    1s    run stops: step `build` failed and its policy is `abort`; everything is told to end
    1s    run failed
    ");
}

#[test]
fn an_output_that_cannot_be_computed_fails_the_run() {
    assert_snapshot!(timeline("plan outputs=error
        build", "
        0s start
        1s build ends
        "), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    run stops: an output could not be computed: the output `out`: no such key `y`; everything is told to end
    1s    run failed
    ");
}

/// Waiting for the locks of an attempt is a part of it: when that takes too long, the attempt has failed.
#[test]
fn a_step_that_waits_too_long_for_its_locks_tries_again() {
    assert_snapshot!(timeline(
        "build locks=tree lock_wait=5 retries=2 delay=10",
        "
        0s rival takes tree
        0s start
        14s why build
        16s why build
        17s rival lets go
        18s build ends
        "
    ), @"
    0s    rival has lock tree
    0s    run started
    0s    build waits for lock tree
    5s    build failed: waited 5 s for lock `tree`, which run 99 has or wants before it
    5s    build#1 due at 15s
    5s    build lets its locks go
    14s   why build? attempt 1 due at 15s
    15s   build waits for lock tree
    16s   why build? lock tree: run 99 has it since 0s
    17s   rival lets its locks go
    17s   build has lock tree
    17s   build#1 starts
    18s   build#1 succeeded
    18s   build lets its locks go
    18s   run succeeded
    ");
    assert_snapshot!(timeline(
        "build locks=tree lock_wait=5 retries=1",
        "
        0s rival takes tree
        0s start
        12s tick
        "
    ), @"
    0s    rival has lock tree
    0s    run started
    0s    build waits for lock tree
    5s    build failed: waited 5 s for lock `tree`, which run 99 has or wants before it
    5s    build#1 due at 5s
    5s    build lets its locks go
    5s    build waits for lock tree
    10s   build failed for good: waited 5 s for lock `tree`, which run 99 has or wants before it
    10s   build lets its locks go
    10s   run stops: step `build` failed and its policy is `abort`; everything is told to end
    10s   run failed
    ");
}

/// So they can be told what became of the run, and nothing in `finally` can be a part of them.
#[test]
fn outputs_are_computed_before_finally_begins() {
    assert_snapshot!(timeline("plan outputs=error
        build
        mourn finally=true", "
        0s start
        1s build ends
        2s mourn ends
        "), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    run stops: an output could not be computed: the output `out`: no such key `y`; everything is told to end
    1s    all else failed: what stands in finally may start
    1s    mourn#1 starts
    2s    mourn#1 succeeded
    2s    run failed
    ");
    assert_snapshot!(timeline("plan outputs=7
        build
        clean finally=true", "
        0s start
        1s build ends
        1s crash
        2s resume
        3s clean exits 1
        "), @"
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    1s    the owner dies
    2s    run resumed
    2s    clean#1 lost
    2s    clean#2 due at 2s
    2s    clean#2 starts
    3s    clean#2 failed for good: exit code 1
    3s    run failed
    ");
}

/// Who died with the plan's locks has to have them again; what cleans up does not give up waiting for them.
#[test]
fn finally_waits_for_the_plans_locks_as_long_as_it_takes() {
    assert_snapshot!(timeline(
        "plan locks=tree lock_wait=5
        build
        clean finally=true",
        "
        0s start
        1s build ends
        2s crash
        2s run loses its locks
        2s rival takes tree
        3s resume
        60s rival lets go
        61s clean ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    build#1 starts
    1s    build#1 succeeded
    1s    all else succeeded: what stands in finally may start
    1s    clean#1 starts
    2s    the owner dies
    2s    run lets its locks go
    2s    rival has lock tree
    3s    run resumed
    3s    clean#1 lost
    3s    clean#2 due at 3s
    3s    run waits for lock tree
    60s   rival lets its locks go
    60s   run has lock tree
    60s   run started
    60s   clean#2 starts
    61s   clean#2 succeeded
    61s   run succeeded
    61s   run lets its locks go
    ");
    assert_snapshot!(timeline(
        "plan locks=tree lock_wait=5
        build
        clean finally=true",
        "
        0s start
        2s crash
        2s run loses its locks
        2s rival takes tree
        3s resume
        60s rival lets go
        61s clean ends
        "
    ), @"
    0s    run has lock tree
    0s    run started
    0s    build#1 starts
    2s    the owner dies
    2s    run lets its locks go
    2s    rival has lock tree
    3s    run resumed
    3s    build#1 lost
    3s    build#2 due at 3s
    3s    run waits for lock tree
    8s    run stops: lock `tree` was not to be had in time: run 99 has it; everything is told to end
    8s    run lets its locks go
    8s    build canceled
    8s    all else failed: what stands in finally may start
    8s    run waits for lock tree
    60s   rival lets its locks go
    60s   run has lock tree
    60s   run started
    60s   clean#1 starts
    61s   clean#1 succeeded
    61s   run failed
    61s   run lets its locks go
    ");
}
