//! Builds the supervisor as a static program, which `src/sandbox/folder.rs` embeds in the agent.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let target = env::var("TARGET").expect("cargo sets it");
    for path in ["build.rs", "Cargo.toml", "Cargo.lock", "init/Cargo.toml", "init/src"] {
        println!("cargo::rerun-if-changed={path}");
    }

    // Its own target folder: the outer cargo holds the lock of its own.
    let built = out.join("init-target");
    let mut build = Command::new(cargo);
    build
        .current_dir(&root)
        .args(["build", "--locked", "--package", "quickcmd-init", "--bin", "quickcmd-init"])
        .args(["--profile", "init", "--target", &target])
        .env("CARGO_TARGET_DIR", &built)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // What the outer build was told (clippy's wrapper, coverage, other flags) is not for a static program.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
        "LLVM_PROFILE_FILE",
    ] {
        build.env_remove(name);
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "the supervisor (init/) could not be built");

    let program = built.join(&target).join("init").join("quickcmd-init");
    fs::copy(&program, out.join("quickcmd-init")).expect("the supervisor was built and can be copied");
}
