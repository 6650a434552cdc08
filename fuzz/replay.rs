//! Every input of the corpus through its target, without a fuzzer: what was found once stays mended.
//!
//! `fuzz/corpus/TARGET/` holds inputs, one a file: seeds, and what `make fuzz` found, named after it.

mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let targets: BTreeSet<_> = targets::ALL.iter().map(|t| t.name.to_owned()).collect();
    assert_eq!(targets, BTreeSet::from_iter(names(&corpus())));
    for target in targets {
        assert!(!names(&corpus().join(&target)).is_empty(), "{target}");
    }
}

#[test]
fn no_input_of_the_corpus_makes_its_target_panic_or_dawdle() {
    let mut wrong = Vec::new();
    for target in targets::ALL {
        for name in names(&corpus().join(target.name)) {
            let input = fs::read(corpus().join(target.name).join(&name)).unwrap();
            let begun = Instant::now();
            if catch_unwind(|| (target.run)(&input)).is_err() {
                wrong.push(format!("{}/{name} panics", target.name));
            }
            if begun.elapsed() > Duration::from_secs(5) {
                wrong.push(format!("{}/{name} took {:?}", target.name, begun.elapsed()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
