//! A simulation that finds nothing proves nothing: each planted bug must be found soon.

use enigma_simulation::{Options, Plant, run};

/// In so many runs each bug has to show.
const WITHIN: u64 = 400;

#[test]
fn every_planted_bug_is_found() {
    for plant in Plant::ALL {
        let options = Options { plant: Some(plant), traced: false };
        let found = (0..WITHIN).find_map(|seed| run(seed, &options).err());
        let Some(failure) = found else { panic!("{plant:?} is not found within {WITHIN} runs") };
        eprintln!("{plant:?}: seed {}: {}", failure.seed, failure.violation);
    }
}
