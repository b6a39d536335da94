//! Random identifiers.

/// `bytes` random bytes from the operating system, in lower-case hex.
///
/// # Panics
/// If the operating system has no randomness to give, which Linux does not do after boot.
pub fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).expect("the operating system gives random bytes");
    hex::encode(buffer)
}
