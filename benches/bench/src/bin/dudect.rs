//! Does the time that a wrong MAC takes tell where it is wrong? Welch's t-test over two classes of signatures, one wrong
//! in its first byte, one in its last (Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?"). A comparison
//! that does stop at the first difference is measured beside it: if that is not found, the machine tells nothing.
//!
//!   quickcmd-dudect [SAMPLES] [SEED]       a million, and 1, unless given

use std::{hint::black_box, process::ExitCode, time::Instant};

use quickcmd::wire::key::{SigningKey, VerifyingKey};

/// Beyond this the two classes differ for certain: chance gives it once in a hundred thousand times.
const BOUND: f64 = 4.5;
/// Measurements above these parts of all are cut off: an interrupt says nothing of the code. All count in the first.
const CUTS: [f64; 8] = [1.0, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1];
/// A measurement of one call is mostly that of the clock: so many are one sample.
const CALLS: u32 = 4;

/// xorshift64*, for the order of the classes.
struct Lots(u64);

impl Lots {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Mean and variance as they come (Welford).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

fn welch(classes: &[Moments; 2]) -> f64 {
    let [first, last] = classes;
    let error = first.variance() / first.count + last.variance() / last.count;
    (first.mean - last.mean) / error.sqrt()
}

/// Nanoseconds of each sample with its class.
fn measure(
    samples: usize,
    seed: u64,
    wrong: &[Vec<u8>; 2],
    check: impl Fn(&[u8]) -> bool,
) -> Vec<(usize, f64)> {
    let mut lots = Lots(seed | 1);
    let mut taken = Vec::with_capacity(samples);
    let mut signature = [0; 32];
    for _ in 0..samples {
        let class = usize::from(lots.next() >> 63 == 1);
        // One place for both, so that where they lie makes no difference.
        signature.copy_from_slice(&wrong[class]);
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(check(black_box(&signature)));
        }
        taken.push((class, start.elapsed().as_secs_f64() * 1e9));
    }
    taken
}

/// The largest |t| of all cuts; says each.
fn verdict(what: &str, taken: &[(usize, f64)]) -> f64 {
    let mut sorted: Vec<f64> = taken.iter().map(|(_, nanos)| *nanos).collect();
    sorted.sort_by(f64::total_cmp);
    let mut worst: f64 = 0.0;
    println!("{what}: {} samples of {CALLS} calls", taken.len());
    for (part, most) in CUTS.map(|part| (part, sorted[place(part, sorted.len())])) {
        let mut classes = [Moments::default(), Moments::default()];
        for (class, nanos) in taken {
            if *nanos <= most {
                classes[*class].add(*nanos);
            }
        }
        let t = welch(&classes);
        let [first, last] = &classes;
        println!(
            "  fastest {:>3.0} %: first byte {:.2} ns, last byte {:.2} ns, t = {t:+.2}",
            part * 100.0,
            first.mean,
            last.mean
        );
        if t.is_finite() {
            worst = worst.max(t.abs());
        }
    }
    worst
}

/// The index of a quantile.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length that is one")]
fn place(part: f64, length: usize) -> usize {
    ((length as f64 * part) as usize).clamp(1, length) - 1
}

/// What nobody should do.
fn stops_at_the_first_difference(given: &[u8], right: &[u8]) -> bool {
    given.iter().zip(right).all(|(given, right)| black_box(given) == black_box(right))
}

fn main() -> ExitCode {
    let number =
        |at: usize, default: u64| std::env::args().nth(at).map_or(Some(default), |text| text.parse().ok());
    let (Some(samples), Some(seed)) = (number(1, 1_000_000), number(2, 1)) else {
        eprintln!("usage: quickcmd-dudect [SAMPLES] [SEED]");
        return ExitCode::from(2);
    };
    let samples = usize::try_from(samples).unwrap_or(usize::MAX).max(1000);
    let message = br#"{"job_id":"job-1","command":"true","ttl":1700000300,"timestamp":1700000000}"#;
    let signing = SigningKey::hmac(*b"a secret of the test, which is long enough for all");
    let verifying: VerifyingKey = signing.verifying();
    let right = signing.sign(message);
    let wrong = [0, 31].map(|at| {
        let mut wrong = right.clone();
        wrong[at] ^= 0x55;
        wrong
    });
    assert!(verifying.verify(message, &right) && !wrong.iter().any(|wrong| verifying.verify(message, wrong)));

    // The control has no hash in it: it shows what a few comparisons are to this clock.
    let control = measure(samples, seed, &wrong, |given| stops_at_the_first_difference(given, &right));
    let control = verdict("a comparison that stops at the first difference", &control);
    let subject = measure(samples, seed, &wrong, |given| verifying.verify(message, given));
    let subject = verdict("VerifyingKey::verify", &subject);
    println!("largest |t|: control {control:.2}, verify {subject:.2}; the bound is {BOUND}");
    if control <= BOUND {
        println!("dudect: NOTHING LEARNT: not even the control's difference was found on this machine");
        return ExitCode::from(3);
    }
    if subject >= BOUND {
        println!("dudect: FAILED: the time of a wrong MAC depends on where it is wrong");
        return ExitCode::FAILURE;
    }
    println!("dudect: passed");
    ExitCode::SUCCESS
}
