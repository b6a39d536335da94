//! No image of this process's memory is ever written to a disk or shown to another process of its user: it holds
//! keys and the secrets of jobs.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump, by the kernel or by a helper that it would call, and no tracing by who is not root. To be called once
/// the process is the user that it stays: changing that gives the attribute another value.
///
/// # Errors
/// The kernel does not take it.
pub fn become_undumpable() -> std::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A second lock. The unit has it already, and its filter may not let us.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::debug!(%error, "the limit of core files stays as it is");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_this_process() {
        become_undumpable().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(Resource::Core).maximum, Some(0));
    }
}
