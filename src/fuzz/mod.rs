//! What is fuzzed: one function for each place where bytes of somebody else's come in. Only in tests and in builds with the
//! feature `fuzzing`; `fuzz/` hands these functions to libFuzzer, and the tests beside this file run them over the corpus.
//!
//! A function must not panic, whatever it is given, and where it takes something it checks what must then hold.

mod inputs;
mod spools;
#[cfg(test)]
mod tests;

pub use inputs::{config, cursor, envelope, httpsig, orders, payload, supervisor};
pub use spools::spool;

/// Takes any bytes, and must not panic.
pub type Target = fn(&[u8]);

/// Every target by its name: that of its folder in `fuzz/corpus` and its file in `fuzz/fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("envelope", envelope),
    ("payload", payload),
    ("supervisor", supervisor),
    ("orders", orders),
    ("spool", spool),
    ("cursor", cursor),
    ("httpsig", httpsig),
    ("config", config),
];
