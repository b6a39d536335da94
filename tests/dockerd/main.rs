//! Docker that fails, or is set up otherwise: an engine of the tests' own, stopped, killed and frozen under a running agent
//! (`away`), one whose ids are not the host's (`remapped`), and one that answers what a test wants (`wayward`). The first needs root, `dockerd`, `containerd` and the `docker` client, and fails
//! without them; it leaves the host's own engine alone but for a copy of the image.

#[path = "../common/harness.rs"]
#[allow(dead_code, reason = "it is made for more than these tests")]
mod harness;

mod away;
mod daemon;
mod engine;
mod remapped;
mod wayward;
