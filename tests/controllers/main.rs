//! Controllers that are not ours, as programs against a real agent on real Docker: the examples in Python and in shell,
//! and one in Go that is written as QuickCMD v1 controllers are. Needs `QUICKCMD_TEST_IMAGE`, python3, openssl, curl, jq
//! and go (scripts/test.sh prepares them); asked for without them it fails.

#[path = "../common/harness.rs"]
#[allow(dead_code, reason = "it is made for more than these tests")]
mod harness;

mod examples;
mod go;
mod program;
