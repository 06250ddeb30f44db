//! Random runs, and the one that is asked for.
#![expect(clippy::panic, reason = "a failing seed ends the test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use enigma_simulation::{Options, Summary, run};

/// The number that an environment variable holds.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and is {text:?}")))
}

#[test]
fn invariants_hold_in_every_run() {
    if let Some(seed) = number("ENIGMA_SIM_SEED") {
        match run(seed, &Options { traced: true, ..Options::default() }) {
            Ok(summary) => eprintln!("seed {seed}: {summary:?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let runs = number("ENIGMA_SIM_RUNS").unwrap_or(10_000);
    let first = number("ENIGMA_SIM_FIRST").unwrap_or(0);
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (total, failed) = (Mutex::new(Summary::default()), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    match run(seed, &Options::default()) {
                        Ok(one) => add(&mut total.lock().unwrap_or_else(PoisonError::into_inner), &one),
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                        }
                    }
                }
            });
        }
    });
    if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        panic!("{failure}");
    }
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!("{runs} runs: {total:?}");
    // A run in which nothing happens finds nothing.
    assert!(total.calls > runs && total.turns > runs / 2 && total.records > runs, "{total:?}");
    assert!(total.cut > runs / 50 && total.faults > runs / 4 && total.replays > runs / 50, "{total:?}");
}

fn add(total: &mut Summary, one: &Summary) {
    total.steps += one.steps;
    total.requests += one.requests;
    total.calls += one.calls;
    total.turns += one.turns;
    total.records += one.records;
    total.cut += one.cut;
    total.faults += one.faults;
    total.replays += one.replays;
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..200 {
        let [first, second] = [false, true].map(|traced| run(seed, &Options { traced, plant: None }));
        match (first, second) {
            (Ok(first), Ok(second)) => assert_eq!(first, second, "seed {seed}"),
            (first, second) => assert_eq!(first.is_err(), second.is_err(), "seed {seed}"),
        }
    }
}
