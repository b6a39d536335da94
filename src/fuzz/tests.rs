//! The corpus, and mutations of it by a fixed seed: what libFuzzer would do for hours, for a moment and without it.

use std::{collections::BTreeMap, fs, path::Path};

use super::{TARGETS, Target};

/// Mutations of each target; of a configuration fewer, for it takes a file and milliseconds each.
const MUTATIONS: usize = 1500;
const MUTATIONS_OF_FILES: usize = 300;
/// Bytes of what is tried.
const LONGEST: usize = 16 << 10;

/// xorshift64*.
struct Lots(u64);

impl Lots {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1) as u64).unwrap()
    }
}

fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

/// One to four small changes, some with a part of another input.
fn mutated(lots: &mut Lots, base: &[u8], other: &[u8]) -> Vec<u8> {
    const WORDS: &[&[u8]] = &[
        b"null",
        b"\"\"",
        b"{}",
        b"[]",
        b"-1",
        b"0",
        b"18446744073709551615",
        b"9223372036854775808",
        b"1e999",
        b"\\u0000",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\n",
        b"\"",
        b"QCR1",
    ];
    let mut data = base[..base.len().min(LONGEST)].to_vec();
    for _ in 0..=lots.below(4) {
        let at = lots.below(data.len() + 1);
        let end = at + lots.below((data.len() - at).min(64) + 1);
        match lots.below(7) {
            0 if at < data.len() => data[at] ^= 1 << lots.below(8),
            1 if at < data.len() => data[at] = u8::try_from(lots.below(256)).unwrap(),
            2 => drop(data.drain(at..end)),
            3 => data.truncate(at),
            4 => drop(data.splice(at..end, WORDS[lots.below(WORDS.len())].iter().copied())),
            5 => {
                let part = data[at..end].to_vec();
                drop(data.splice(at..at, part));
            }
            _ => {
                let from = lots.below(other.len() + 1);
                let part = &other[from..(from + lots.below(128)).min(other.len())];
                drop(data.splice(at..end, part.iter().copied()));
            }
        }
    }
    data
}

/// Runs a target, and shows the input that it falls over.
fn run(name: &str, target: Target, data: &[u8], what: &str) {
    let result = std::panic::catch_unwind(|| target(data));
    assert!(result.is_ok(), "{name} falls over {what}: {}", String::from_utf8_lossy(data).escape_debug());
}

fn try_target(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    assert!(corpus.len() >= 3, "{name} has {} inputs", corpus.len());
    for (file, data) in &corpus {
        run(name, *target, data, file);
    }
    let inputs: Vec<&Vec<u8>> = corpus.values().collect();
    let mut lots = Lots(0x5eed_0000_0000_0001);
    let mutations = if name == "config" { MUTATIONS_OF_FILES } else { MUTATIONS };
    for n in 0..mutations {
        let (base, other) = (inputs[lots.below(inputs.len())], inputs[lots.below(inputs.len())]);
        run(name, *target, &mutated(&mut lots, base, other), &format!("mutation {n}"));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { try_target(stringify!($name)); })*
        const TRIED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! { envelope payload supervisor orders spool cursor httpsig config }

#[test]
fn every_target_is_tried_and_has_its_program() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TRIED);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in names {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("quickcmd::fuzz::{name}(data)")), "{name}: {program}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}
