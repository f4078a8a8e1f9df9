//! Calls each target with its seeds, without a fuzzer: part of the unit tests of each crate that has targets. With
//! FUZZ_SECONDS in the environment, each target, or the one that FUZZ_TARGET names, gets changed seeds for so long, too.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

/// Calls each target with every file of `fuzz/seeds/<its name>`, whole and cut at each sixteenth of its length.
///
/// # Panics
/// A target panics, or has no seeds.
pub(crate) fn replay(targets: &[super::FuzzTarget]) {
    let seconds = env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("FUZZ_SECONDS is a number"));
    for &(name, target) in targets {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let files = fs::read_dir(directory.join("seeds").join(name)).expect(name);
        let seed = |file: fs::DirEntry| fs::read(file.path()).expect("a seed");
        let seeds: Vec<_> = files.map(|file| seed(file.expect("an entry"))).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            for sixteenths in 1..=16 {
                target(&seed[..seed.len() * sixteenths / 16]);
            }
        }
        let is_other = env::var("FUZZ_TARGET").is_ok_and(|chosen| chosen != name);
        let seconds = seconds.filter(|_| !is_other);
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let (mut random, mut calls) = (Random(1), 0_u64);
        while end.is_some_and(|end| Instant::now() < end) {
            let input = random.changed(&seeds);
            calls += 1;
            if panic::catch_unwind(|| target(&input)).is_err() {
                let path = directory.join(format!("artifacts/{name}-{calls}"));
                fs::create_dir_all(directory.join("artifacts")).expect("a directory");
                fs::write(&path, input).expect("the input is kept");
                panic!("{name}: {} makes it panic", path.display());
            }
        }
        if seconds.is_some() {
            eprintln!("{name}: {calls} calls");
        }
    }
}

/// Numbers of Knuth's MMIX generator; the high bits are the better ones.
struct Random(u64);

impl Random {
    /// A number below `below`, or 0.
    fn below(&mut self, below: usize) -> usize {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    /// A part of some bytes.
    fn part<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let from = self.below(bytes.len());
        let most = if self.below(2) == 0 { 8 } else { bytes.len() };
        &bytes[from..(from + self.below(most)).min(bytes.len())]
    }

    /// A seed with one to eight changes: bytes overwritten, taken out, or put in from some seed.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\r\n \t:;,0129-\"{}[]";
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(input.len());
            match self.below(4) {
                0 if !input.is_empty() => input[at] = BYTES[self.below(BYTES.len())],
                1 if !input.is_empty() => input[at] = self.below(256) as u8,
                2 => {
                    let end = (at + self.below(16)).min(input.len());
                    input.drain(at..end);
                }
                _ => {
                    let other = self.below(seeds.len());
                    let part = self.part(&seeds[other]);
                    input.splice(at..at, part.iter().copied());
                }
            }
        }
        input
    }
}
